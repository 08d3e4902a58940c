//! PEM text: the blocks that are read are written to a text that reads the same.
#![no_main]

use hie_node_pki::key::Key;
use hie_node_pki::pem;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    for label in [pem::CERTIFICATE, pem::PRIVATE_KEY, pem::CRL, pem::CSR] {
        if let Ok(blocks) = pem::read_all(label, text) {
            let written: String = blocks.iter().map(|der| pem::write(label, der)).collect();
            // Writing wraps lines anew, which may take the text of many short lines over the limit of size.
            if written.len() <= pem::PEM_BYTES_MAX {
                assert_eq!(pem::read_all(label, &written), Ok(blocks));
            }
        }
    }
    let _ = Key::from_pem(text);
});
