//! Writes seeds for every target into `corpus/<target>` beside the manifest: samples that our own writers make.

use std::fs;
use std::path::{Path, PathBuf};

use hie_fuzz::region::{NOW, Region};
use hie_gateway_dialect::fhir::fixture::region_population;
use hie_gateway_dialect::fhir::guard::Limits;
use hie_gateway_dialect::fhir::import::import;
use hie_gateway_dialect::fhir::ips::{SummaryInput, assemble};
use hie_gateway_dialect::multipart::Writer;
use hie_node_pki::pem;
use hie_protocol::cbor;
use hie_protocol::checkpoint::note::{KeyKind, NoteKey};
use hie_protocol::checkpoint::{Checkpoint, NoteSigner};
use hie_protocol::claim::Claim;
use hie_protocol::id::{Correlation, Nonce};
use hie_protocol::invitation::{Draft, Invitation};
use hie_protocol::oprf::client::Blinding;
use hie_protocol::oprf::key::deal;
use hie_protocol::sign::{self, Signer};
use hie_protocol::vocabulary::{Purpose, Role};

fn main() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let seeds = Seeds {
        root: root.join("corpus"),
    };
    let region = Region::new();
    seeds.frames(&root.join("../../protocol/vectors/frames.json"), &region);
    seeds.trust(&region);
    seeds.notes(&region);
    seeds.tokens();
    seeds.clinical();
    seeds.consents();
    seeds.put(
        "config_toml",
        "small",
        b"[node]\nname = \"Harbour GP\"\n[web]\nlisten = \"127.0.0.1:8080\"\nplain = true\n",
    );
}

struct Seeds {
    root: PathBuf,
}

impl Seeds {
    fn put(&self, target: &str, name: &str, bytes: &[u8]) {
        let folder = self.root.join(target);
        fs::create_dir_all(&folder).expect("folder");
        fs::write(folder.join(name.replace(' ', "-")), bytes).expect("seed");
    }

    /// The golden frames; a signed one also as the payload alone.
    fn frames(&self, vectors: &Path, region: &Region) {
        let text = fs::read_to_string(vectors).expect("vectors");
        let frames: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&text).expect("vectors");
        for (name, value) in frames {
            let bytes = hex::decode(value.as_str().expect("hex")).expect("hex");
            match name.split(' ').next() {
                Some("lane" | "sealed") => self.put("lane_frame", &name, &bytes),
                Some("signed") => {
                    self.put("signed_envelope", &name, &bytes);
                    let payload = sign::peek(&bytes, 1 << 20).expect("an envelope");
                    self.put("signed_envelope", &format!("{name} payload"), &payload);
                }
                _ => self.put("federation_frame", &name, &bytes),
            }
        }
        self.put(
            "signed_envelope",
            "own registry",
            &cbor::encode(&region.registry).expect("registry"),
        );
        self.put(
            "signed_envelope",
            "own claim",
            &cbor::encode(&claim(region)).expect("claim"),
        );
    }

    fn trust(&self, region: &Region) {
        let (root, crl) = (&region.registry.root, &region.registry.crl);
        for (name, label, der) in [
            ("root", pem::CERTIFICATE, root),
            ("leaf", pem::CERTIFICATE, &region.leaf),
            ("crl", pem::CRL, crl),
            ("csr", pem::CSR, &region.csr),
        ] {
            self.put("certificate", name, der);
            self.put("pem", name, pem::write(label, der).as_bytes());
        }
        let draft = Draft {
            region: "Northport Region".into(),
            root_fingerprint: region.authority.fingerprint(),
            address: "region.example:8440".into(),
            secret: [7; 16],
            expires_at_s: NOW.0 / 1000,
            organisation: region.org.as_str().into(),
            organisation_name: "City General".into(),
        };
        let invitation = Invitation::new(draft).expect("invitation");
        self.put("invitation_text", "text", invitation.to_text().as_bytes());
        self.put("invitation_text", "file", invitation.to_file_text().as_bytes());
    }

    fn notes(&self, region: &Region) {
        let key = NoteKey::new("city-general", KeyKind::Log, *region.key.public().as_bytes()).expect("note key");
        let signed = |message: &[u8]| *region.key.sign(message).as_bytes();
        let checkpoint = Checkpoint::new("city-general", 7, [3; 32]).expect("checkpoint");
        let note = NoteSigner::new(&key, &signed).sign(&checkpoint).expect("signed");
        self.put("checkpoint_note", "signed", note.to_text().as_bytes());
        self.put("checkpoint_note", "body", checkpoint.to_note_body().as_bytes());
        self.put("checkpoint_note", "key", key.to_text().as_bytes());
    }

    fn tokens(&self) {
        let mut counter = 0_u8;
        let mut random = |out: &mut [u8]| {
            for byte in out {
                counter = counter.wrapping_add(1);
                *byte = counter;
            }
        };
        let (group, shares) = deal(2, 3, &mut random).expect("shares");
        self.put("oprf", "group", &group.to_bytes());
        for share in &shares {
            self.put("oprf", &format!("share {}", share.index()), &share.to_bytes());
            self.put("oprf", &format!("public {}", share.index()), &share.public().to_bytes());
        }
        let (_, blinded) = Blinding::new(&[b"one", b"two"], &mut random).expect("blinded");
        self.put(
            "oprf",
            "batch",
            &blinded.iter().flat_map(|element| element.0).collect::<Vec<u8>>(),
        );
    }

    /// The invented patients: Bundles, summaries made of them, one slice each, and slices in a multipart body.
    fn clinical(&self) {
        for (number, person) in region_population().into_iter().take(2).enumerate() {
            for record in person.records {
                let name = format!("{number} {}", record.site.slug());
                let bundle = record.bundle.to_string();
                self.put("fhir_import", &name, bundle.as_bytes());
                let intake = import(bundle.as_bytes(), &Limits::default()).expect("own Bundle");
                for patient in &intake.patients {
                    let summary = assemble(&SummaryInput {
                        organisation_name: record.site.name(),
                        organisation_urn: record.site.urn(),
                        patient: &patient.patient,
                        resources: &patient.resources,
                        now: "2026-11-23T12:00:00Z",
                        bundle_id: "6f1d2c5e-0000-4000-8000-000000000001",
                    });
                    self.put("clinical_summary", &name, summary.to_string().as_bytes());
                }
                if let Some(mut series) = record.series {
                    (series.rows, series.columns, series.slices) = (16, 16, 1);
                    let file = series.file(1);
                    self.put("dicom_instance", &name, &file);
                    self.put("dicom_render", &name, &file);
                }
            }
        }
        let mut writer = Writer::new("b").expect("boundary");
        let mut body = writer.start(&[("Content-Type", "application/dicom")]);
        body.extend(b"one");
        body.extend(writer.start(&[]));
        body.extend(b"two");
        body.extend(writer.finish());
        // In front of the body stand the lengths of the pieces: each after an odd byte, an even byte behind the last.
        self.put("multipart", "two-parts", &[&[0], body.as_slice()].concat());
        self.put(
            "multipart",
            "two-parts-in-pieces",
            &[&[1, 7, 1, 2, 0], body.as_slice()].concat(),
        );
    }

    fn consents(&self) {
        let scope = r#""scope":{"coding":[{"system":"http://terminology.hl7.org/CodeSystem/consentscope","code":"patient-privacy"}]}"#;
        let actor = r#""actor":[{"role":{"coding":[{"system":"http://terminology.hl7.org/CodeSystem/v3-ParticipationType","code":"PRCP"}]},"reference":{"reference":"urn:oid:2.999.7.1"}}]"#;
        for (name, provision) in [
            ("permit", r#"{"type":"permit"}"#.to_owned()),
            ("deny", r#"{"type":"deny"}"#.to_owned()),
            ("except", format!(r#"{{"type":"permit","provision":[{{"type":"deny",{actor}}}]}}"#)),
            ("period", r#"{"type":"deny","period":{"start":"2026-01-01","end":"2027-01-01"},"purpose":[{"system":"http://terminology.hl7.org/CodeSystem/v3-ActReason","code":"TREAT"}],"securityLabel":[{"system":"http://terminology.hl7.org/CodeSystem/v3-ActCode","code":"ETH"}]}"#.to_owned()),
        ] {
            let text = format!(
                r#"{{"resourceType":"Consent","id":"c","status":"active",{scope},"patient":{{"reference":"Patient/1"}},"dateTime":"2026-11-01","provision":{provision}}}"#
            );
            self.put("consent", name, text.as_bytes());
        }
    }
}

fn claim(region: &Region) -> Claim {
    Claim {
        org: region.org.clone(),
        node: region.key.node(),
        user: "haddad".into(),
        user_name: "Dr Haddad".into(),
        role: Role::Physician,
        purpose: Purpose::Treatment,
        evidence: None,
        break_glass: None,
        audience: region.org.clone(),
        correlation: Correlation::new([4; 16]),
        nonce: Nonce::new([5; 16]),
        issued: NOW,
        expires: NOW.plus(60_000),
    }
}
