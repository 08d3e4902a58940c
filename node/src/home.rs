//! Where a node keeps what: configuration, identity, secrets, data. Private files are 0600, writes are atomic.
//!
//! ```text
//! <home>/hie.toml            configuration
//! <home>/identity/           node.key (never leaves), node.pem, region.pem
//! <home>/secrets/            kek (seals the store; outside data), web.key
//! <home>/data/               store/, content/
//! <home>/run/hie.sock        command socket of the running node
//! ```

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Paths of a node's home.
#[derive(Clone, Debug)]
pub struct Home {
    root: PathBuf,
}

impl Home {
    /// A home at that folder.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Configuration file.
    pub fn config(&self) -> PathBuf {
        self.root.join("hie.toml")
    }

    /// Identity folder.
    pub fn identity(&self) -> PathBuf {
        self.root.join("identity")
    }

    /// The node's private key, PKCS#8 PEM.
    pub fn node_key(&self) -> PathBuf {
        self.identity().join("node.key")
    }

    /// The node's certificate, PEM.
    pub fn node_certificate(&self) -> PathBuf {
        self.identity().join("node.pem")
    }

    /// The signed registry last taken.
    pub fn registry(&self) -> PathBuf {
        self.identity().join("registry.cbor")
    }

    /// Highest registry that was ever in force, beside the store.
    pub fn registry_mark(&self) -> PathBuf {
        self.root.join("data").join("registry.mark")
    }

    /// Share of the token key, for a token authority.
    pub fn token_share(&self) -> PathBuf {
        self.root.join("secrets").join("token.share")
    }

    /// Key-encryption key.
    pub fn kek(&self) -> PathBuf {
        self.root.join("secrets").join("kek")
    }

    /// What joining learnt: region, authority address, root fingerprint.
    pub fn membership(&self) -> PathBuf {
        self.identity().join("membership.json")
    }

    /// Certificate and key of the web server when none is configured.
    pub fn web(&self) -> (PathBuf, PathBuf) {
        (
            self.identity().join("web.pem"),
            self.root.join("secrets").join("web.key"),
        )
    }

    /// Key-value store.
    pub fn store(&self) -> PathBuf {
        self.root.join("data").join("store")
    }

    /// Content store.
    pub fn content(&self) -> PathBuf {
        self.root.join("data").join("content")
    }

    /// Command socket of the running node.
    pub fn socket(&self) -> PathBuf {
        self.root.join("run").join("hie.sock")
    }

    /// Makes the folders, private to the owner.
    pub fn create(&self) -> io::Result<()> {
        for folder in ["identity", "secrets", "data", "run"] {
            let path = self.root.join(folder);
            fs::create_dir_all(&path)?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o700))?;
        }
        Ok(())
    }
}

/// Writes a private file so that after a crash it is whole or absent: temporary, fsync, rename, fsync of the folder.
pub fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let temporary = path.with_extension("new");
    let mut file = OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o600)
        .open(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    drop(file);
    fs::rename(&temporary, path)?;
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::os::unix::fs::PermissionsExt;

    use super::{Home, write_private};

    #[test]
    fn private_files_are_private_and_replaced_whole() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::at(folder.path());
        home.create().unwrap();
        write_private(&home.kek(), b"one").unwrap();
        write_private(&home.kek(), b"two").unwrap();
        assert_eq!(std::fs::read(home.kek()).unwrap(), b"two");
        assert_eq!(
            std::fs::metadata(home.kek()).unwrap().permissions().mode() & 0o777,
            0o600
        );
    }
}
