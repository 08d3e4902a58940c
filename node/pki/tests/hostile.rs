//! Certificates, lists and requests made by others: every one is read or refused with a reason, none breaks the process.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod region;

use std::io::Read as _;
use std::path::PathBuf;

use hie_node_pki::csr::CheckedCsr;
use hie_node_pki::pem;
use hie_node_pki::refusal::CertificateRefusal;
use hie_node_pki::verify::{Side, judge_at};
use hie_node_pki::x509;

use region::{NOW, Region};

/// Folder of the hostile corpus, or none after saying so; in CI its absence is a failure.
fn corpus() -> Option<PathBuf> {
    let base = std::env::var_os("HIE_TEST_DATA").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data"),
        PathBuf::from,
    );
    let folder = base.join("07-hostile-and-vectors");
    if folder.is_dir() {
        return Some(folder);
    }
    assert!(std::env::var_os("CI").is_none(), "no test data at {}", folder.display());
    println!("skipped: no test data at {} (set HIE_TEST_DATA)", folder.display());
    None
}

/// Feeds one piece of DER to every reader; counts what was accepted.
fn feed(region: &Region, der: &[u8], read: &mut usize, refused: &mut usize) {
    match x509::certificate(der) {
        Ok(_) => *read += 1,
        Err(error) => {
            *refused += 1;
            assert!(!error.to_string().is_empty());
        }
    }
    if let Err(error) = x509::crl(der) {
        assert!(error.to_string().contains("revocation list"), "{error}");
    }
    assert!(CheckedCsr::check(der).is_err());
    let judged = judge_at(&region.membership(), &der.to_vec().into(), &[], Side::Client, NOW);
    assert!(judged.is_err(), "a foreign certificate was accepted");
}

#[test]
fn the_limbo_certificates_are_read_or_refused() {
    let Some(folder) = corpus() else { return };
    let text = std::fs::read(folder.join("x509-limbo.json")).unwrap();
    let limbo: serde_json::Value = serde_json::from_slice(&text).unwrap();
    let region = Region::new();
    let (mut read, mut refused) = (0, 0);
    let mut lists = 0;
    for case in limbo["testcases"].as_array().unwrap() {
        let mut pems = vec![case["peer_certificate"].clone()];
        pems.extend(case["untrusted_intermediates"].as_array().unwrap().iter().cloned());
        pems.extend(case["trusted_certs"].as_array().unwrap().iter().cloned());
        for text in pems.iter().filter_map(serde_json::Value::as_str) {
            match pem::read(pem::CERTIFICATE, text) {
                Ok(der) => feed(&region, &der, &mut read, &mut refused),
                Err(error) => assert!(!error.to_string().is_empty()),
            }
        }
        for text in case["crls"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(serde_json::Value::as_str)
        {
            let der = pem::read(pem::CRL, text).unwrap();
            lists += usize::from(x509::crl(&der).is_ok());
        }
    }
    println!("limbo: {read} certificates read, {refused} refused, {lists} lists read");
    assert!(read > 100 && lists > 0);
}

#[test]
fn the_pkits_certificates_and_lists_are_read_or_refused() {
    let Some(folder) = corpus() else { return };
    let file = std::fs::File::open(folder.join("pkits-certs-crls.tar.gz")).unwrap();
    let mut tar = Vec::new();
    flate2::read::GzDecoder::new(file).read_to_end(&mut tar).unwrap();
    let region = Region::new();
    let (mut read, mut refused, mut lists) = (0, 0, 0);
    for (name, der) in entries(&tar) {
        if name.ends_with(".crt") {
            feed(&region, der, &mut read, &mut refused);
        } else if name.ends_with(".crl") {
            lists += usize::from(x509::crl(der).is_ok());
        }
        // Every truncation of every file is refused, too.
        for end in (0..der.len()).step_by(97) {
            assert!(
                x509::certificate(&der[..end]).is_err() && x509::crl(&der[..end]).is_err(),
                "{name} {end}"
            );
        }
    }
    println!("pkits: {read} certificates read, {refused} refused, {lists} lists read");
    assert!(read > 300 && lists > 100);
}

/// Files of a tar archive (ustar): 512-byte headers, size in octal.
fn entries(tar: &[u8]) -> Vec<(String, &[u8])> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(header) = tar.get(at..at + 512) {
        if header[0] == 0 {
            break;
        }
        let text = |field: &[u8]| String::from_utf8_lossy(field).trim_end_matches(['\0', ' ']).to_owned();
        let size = usize::from_str_radix(text(&header[124..136]).trim(), 8).unwrap();
        if header[156] == b'0' || header[156] == 0 {
            found.push((text(&header[..100]), &tar[at + 512..at + 512 + size]));
        }
        at += 512 + size.div_ceil(512) * 512;
    }
    found
}

#[test]
fn a_malformed_certificate_is_refused_with_place_and_reason() {
    let region = Region::new();
    let leaf = region.node("urn:oid:2.999.1").chain()[0].to_vec();
    let cut = x509::certificate(&leaf[..100]).unwrap_err().to_string();
    assert_eq!(
        cut,
        "the certificate is malformed: the value at byte 0 goes beyond the bytes present"
    );
    let mut long = leaf.clone();
    long.push(0);
    let trailing = x509::certificate(&long).unwrap_err().to_string();
    assert_eq!(
        trailing,
        format!("the certificate ends at byte {} but more bytes follow", leaf.len())
    );
    let judged = judge_at(&region.membership(), &long.into(), &[], Side::Client, NOW);
    assert_eq!(judged, Err(CertificateRefusal::Malformed));
}
