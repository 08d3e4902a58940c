#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::sync::Arc;

use super::{Kek, KekError, KeyScope, Vault, VaultError};
use crate::catalogue::Table;
use crate::ids::PatientKey;
use crate::kv::memory::MemoryKv;
use crate::kv::{Batch, Kv};
use crate::ports::SeededRandom;

const ANNA: PatientKey = PatientKey([7; 16]);

fn vault(kv: &Arc<MemoryKv>, seed: u64) -> Result<Vault, VaultError> {
    let random = SeededRandom::new(seed);
    let kek = Kek::generate(&random).unwrap();
    Vault::open(&kek, kv.clone(), Arc::new(random))
}

#[test]
fn a_value_opens_only_in_its_place() {
    let kv = Arc::new(MemoryKv::new());
    let vault = vault(&kv, 1).unwrap();
    let mut batch = Batch::new();
    vault.create(ANNA, &mut batch).unwrap();
    kv.commit(batch).unwrap();
    let scopes = [KeyScope::Node, KeyScope::Patient(ANNA)];
    for scope in scopes {
        let sealed = vault.seal(scope, Table::Patients, b"key", b"plain").unwrap();
        assert_eq!(
            vault
                .open_value(scope, Table::Patients, b"key", &sealed)
                .unwrap()
                .as_slice(),
            b"plain"
        );
        let altered = Err(VaultError::Altered { table: "patients" });
        assert_eq!(vault.open_value(scope, Table::Patients, b"other", &sealed), altered);
        assert!(vault.open_value(scope, Table::Records, b"key", &sealed).is_err());
        for bit in 0..sealed.len() * 8 {
            let mut forged = sealed.clone();
            forged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(
                vault.open_value(scope, Table::Patients, b"key", &forged),
                altered,
                "bit {bit}"
            );
        }
        for length in 0..sealed.len() {
            assert_eq!(
                vault.open_value(scope, Table::Patients, b"key", &sealed[..length]),
                altered
            );
        }
    }
}

#[test]
fn the_wrong_key_is_refused_with_words_and_the_right_one_opens_again() {
    let kv = Arc::new(MemoryKv::new());
    let sealed = vault(&kv, 1)
        .unwrap()
        .seal(KeyScope::Node, Table::Meta, b"k", b"v")
        .unwrap();
    let refused = vault(&kv, 2).unwrap_err();
    assert_eq!(refused, VaultError::WrongKek);
    assert!(refused.to_string().contains("point the configuration at the key file"));
    let again = vault(&kv, 1).unwrap();
    assert_eq!(
        again
            .open_value(KeyScope::Node, Table::Meta, b"k", &sealed)
            .unwrap()
            .as_slice(),
        b"v"
    );
    kv.tamper(Table::Patients, b"something", |value| *value = Some(vec![1]));
    kv.tamper(Table::Keys, &[0], |value| *value = None);
    assert_eq!(vault(&kv, 1).unwrap_err(), VaultError::NodeKeyMissing);
}

#[test]
fn an_erased_patient_never_opens_again() {
    let kv = Arc::new(MemoryKv::new());
    let vault = vault(&kv, 1).unwrap();
    let scope = KeyScope::Patient(ANNA);
    assert_eq!(vault.seal(scope, Table::Patients, b"k", b"v"), Err(VaultError::NoKey));
    let mut batch = Batch::new();
    vault.create(ANNA, &mut batch).unwrap();
    assert_eq!(vault.create(ANNA, &mut Batch::new()), Err(VaultError::KeyExists));
    kv.commit(batch).unwrap();
    let sealed = vault.seal(scope, Table::Patients, b"k", b"v").unwrap();
    let mut batch = Batch::new();
    vault.erase(ANNA, &mut batch);
    assert_eq!(
        vault.open_value(scope, Table::Patients, b"k", &sealed),
        Err(VaultError::Erased),
        "at once"
    );
    kv.commit(batch).unwrap();
    let reopened = self::vault(&kv, 1).unwrap();
    assert_eq!(
        reopened.open_value(scope, Table::Patients, b"k", &sealed),
        Err(VaultError::Erased),
        "for ever"
    );
    assert_eq!(reopened.create(ANNA, &mut Batch::new()), Err(VaultError::Erased));
    assert_eq!(reopened.holds(ANNA), Ok(false));
}

#[test]
fn blind_keys_separate_purposes_and_pseudonyms_reverse() {
    let kv = Arc::new(MemoryKv::new());
    let vault = vault(&kv, 1).unwrap();
    assert_eq!(vault.blind_key("a", b"x"), vault.blind_key("a", b"x"));
    assert_ne!(vault.blind_key("a", b"x"), vault.blind_key("b", b"x"));
    assert_ne!(vault.blind_key("a", b"bx"), vault.blind_key("ab", b"x"));
    for byte in 0..=255 {
        let mut key = [0; 16];
        key[usize::from(byte) % 16] = byte;
        let hidden = vault.pseudonym(PatientKey(key));
        assert_ne!(hidden, key);
        assert_eq!(vault.reveal(hidden), PatientKey(key));
    }
}

#[test]
fn a_key_file_is_hexadecimal_and_random() {
    let kek = Kek::generate(&SeededRandom::new(9)).unwrap();
    let text = kek.to_file_content();
    let again = Kek::from_file_content(text.as_bytes()).unwrap();
    assert_eq!(kek.bytes(), again.bytes());
    assert_eq!(Kek::from_file_content(b"short").unwrap_err(), KekError::Form);
    assert_eq!(Kek::from_file_content(&[b'0'; 64]).unwrap_err(), KekError::Weak);
    assert_eq!(Kek::from_file_content(&[0; 32]).unwrap_err(), KekError::Weak);
    assert_eq!(format!("{kek:?}"), "Kek(hidden)");
}
