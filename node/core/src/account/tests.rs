#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::sync::Arc;

use hie_protocol::id::Millis;
use hie_protocol::vocabulary::Role;
use zeroize::Zeroizing;

use super::{AccountError, Accounts, Change, NewAccount};
use crate::catalogue::Table;
use crate::kv::memory::MemoryKv;
use crate::kv::{Batch, Kv, KvRead, Scan};
use crate::ports::SeededRandom;
use crate::vault::{Kek, Vault};

fn accounts() -> (Arc<MemoryKv>, Accounts) {
    let kv = Arc::new(MemoryKv::new());
    let random = Arc::new(SeededRandom::new(1));
    let kek = Kek::generate(&*random).unwrap();
    let vault = Arc::new(Vault::open(&kek, kv.clone(), random.clone()).unwrap());
    (kv.clone(), Accounts::open(kv, vault, random).unwrap())
}

fn physician() -> NewAccount {
    NewAccount {
        name: "Dr.Meyer".to_owned(),
        shown: "Dr. Anna Meyer".to_owned(),
        department: Some("Emergency".to_owned()),
        roles: vec![Role::Physician],
    }
}

const PASSWORD: &str = "correct horse battery";

#[test]
fn a_password_opens_its_own_account_until_it_is_closed() {
    let (kv, accounts) = accounts();
    let mut batch = Batch::new();
    assert_eq!(
        accounts
            .create(physician(), Some(PASSWORD), Millis(1), &mut batch)
            .unwrap(),
        None
    );
    assert_eq!(
        accounts.authenticate("dr.meyer", PASSWORD, Millis(2)),
        Err(AccountError::Refused),
        "not yet committed"
    );
    kv.commit(batch).unwrap();
    let account = accounts.authenticate(" DR.MEYER ", PASSWORD, Millis(3)).unwrap();
    assert_eq!(
        (account.name.as_str(), account.roles.as_slice()),
        ("dr.meyer", [Role::Physician].as_slice())
    );
    assert_eq!(
        accounts.authenticate("dr.meyer", "correct horse batterz", Millis(4)),
        Err(AccountError::Refused)
    );
    let again = accounts.create(physician(), Some(PASSWORD), Millis(5), &mut Batch::new());
    assert_eq!(again.unwrap_err(), AccountError::Exists);
    let mut batch = Batch::new();
    accounts
        .change("dr.meyer", Change::Enabled(false), Millis(6), &mut batch)
        .unwrap();
    kv.commit(batch).unwrap();
    assert_eq!(
        accounts.authenticate("dr.meyer", PASSWORD, Millis(7)),
        Err(AccountError::Refused)
    );
}

#[test]
fn rules_are_checked_before_anything_is_written() {
    let (_, accounts) = accounts();
    let mut batch = Batch::new();
    let mut make = |change: &dyn Fn(&mut NewAccount), password| {
        let mut new = physician();
        change(&mut new);
        accounts.create(new, Some(password), Millis(1), &mut batch).unwrap_err()
    };
    assert_eq!(make(&|_| (), "elevenchars"), AccountError::Password);
    assert_eq!(
        make(&|new| new.name = "abcdefghijkl".into(), "ABCDEFGHIJKL"),
        AccountError::Password
    );
    assert_eq!(make(&|new| new.name = "a b".into(), PASSWORD), AccountError::Name);
    assert_eq!(make(&|new| new.shown = " ".into(), PASSWORD), AccountError::Shown);
    assert_eq!(make(&|new| new.roles.clear(), PASSWORD), AccountError::Roles);
    assert_eq!(
        make(&|new| new.roles = vec![Role::Unknown], PASSWORD),
        AccountError::Roles
    );
    assert!(batch.is_empty());
}

#[test]
fn failures_slow_down_known_and_unknown_accounts_alike_and_pass() {
    let (kv, accounts) = accounts();
    let mut batch = Batch::new();
    let generated = accounts
        .create(physician(), None, Millis(1), &mut batch)
        .unwrap()
        .unwrap();
    kv.commit(batch).unwrap();
    for name in ["dr.meyer", "nobody"] {
        for _ in 0..5 {
            assert_eq!(
                accounts.authenticate(name, "wrong", Millis(1000)),
                Err(AccountError::Refused),
                "{name}"
            );
        }
        let slow = accounts.authenticate(name, &generated, Millis(1500));
        assert_eq!(slow, Err(AccountError::SlowDown { wait_ms: 500 }), "{name}");
    }
    assert!(accounts.authenticate("dr.meyer", &generated, Millis(2000)).is_ok());
    assert!(
        accounts.authenticate("dr.meyer", &generated, Millis(2000)).is_ok(),
        "success forgets the failures"
    );
    let mut batch = Batch::new();
    let change = Change::Password(Zeroizing::new(PASSWORD.to_owned()));
    accounts.change("dr.meyer", change, Millis(3), &mut batch).unwrap();
    kv.commit(batch).unwrap();
    assert_eq!(
        accounts.authenticate("dr.meyer", &generated, Millis(2001)),
        Err(AccountError::Refused)
    );
    assert!(accounts.authenticate("dr.meyer", PASSWORD, Millis(2002)).is_ok());
}

#[test]
fn a_token_opens_its_client_until_it_is_closed_and_nothing_is_stored_in_the_clear() {
    let (kv, accounts) = accounts();
    let mut batch = Batch::new();
    accounts
        .create(physician(), Some(PASSWORD), Millis(1), &mut batch)
        .unwrap();
    let (id, token) = accounts
        .create_client("PACS feed", vec![Role::System], Millis(1), &mut batch)
        .unwrap();
    kv.commit(batch).unwrap();
    assert_eq!(accounts.authenticate_token(&token).unwrap().id, id);
    let mut other = token.to_string();
    other.pop();
    assert_eq!(accounts.authenticate_token(&other), Err(AccountError::Refused));
    for table in Table::ALL {
        for (key, value) in kv.scan(&Scan::of(*table, &[])).unwrap() {
            for secret in ["meyer", "Meyer", "PACS", &token[4..]] {
                let found = |bytes: &[u8]| bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
                assert!(!found(&key) && !found(&value), "{secret} in {}", table.name());
            }
        }
    }
    let mut batch = Batch::new();
    accounts.enable_client(id, false, Millis(2), &mut batch).unwrap();
    kv.commit(batch).unwrap();
    assert_eq!(accounts.authenticate_token(&token), Err(AccountError::Refused));
}
