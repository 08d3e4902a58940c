//! Documents of this organisation for its own users: the same decision, the same audit entry, the same door.

use core::fmt;

use hie_protocol::id::{Correlation, DocumentId};
use hie_protocol::refusal::Class;

use crate::exchange::serve::{Custodian, ServeError};
use crate::exchange::ticket::Granted;
use crate::policy::decide::Asker;
use crate::ports::blocking;
use crate::record::release::{Door, ReleaseError, Released, ReleasedStudy};

/// Why a document does not open.
#[derive(Debug, thiserror::Error)]
pub enum LocalError {
    /// Nothing here that the caller may know of.
    #[error("there is nothing here that may be shown")]
    NothingHere,
    /// The decision or its record.
    #[error("the document cannot be decided")]
    Serve(#[from] ServeError),
    /// The door.
    #[error("the document cannot be released")]
    Release(#[from] ReleaseError),
}

impl LocalError {
    /// Who must act.
    #[must_use]
    pub const fn class(&self) -> Class {
        match self {
            Self::NothingHere => Class::Refused,
            Self::Serve(error) => error.class(),
            Self::Release(error) => error.class(),
        }
    }
}

/// Opens this organisation's documents for its own users.
#[derive(Clone)]
pub struct Local {
    custodian: Custodian,
    door: Door,
}

impl fmt::Debug for Local {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Local")
    }
}

impl Local {
    /// Over the custodian's side and its door.
    #[must_use]
    pub const fn new(custodian: Custodian, door: Door) -> Self {
        Self { custodian, door }
    }

    fn granted(&self, asker: &Asker, document: DocumentId, correlation: Correlation) -> Granted {
        let now = self.custodian.clock.now();
        Granted {
            node: self.custodian.signer.node(),
            document,
            asker: asker.clone(),
            correlation,
            expires: now,
        }
    }

    /// Opens a document from byte `from` on. Errors: [`LocalError`].
    pub async fn open(
        &self,
        asker: &Asker,
        document: DocumentId,
        correlation: Correlation,
        from: u64,
    ) -> Result<Released, LocalError> {
        let granted = self.granted(asker, document, correlation);
        let custodian = self.custodian.clone();
        let keys = blocking(move || custodian.release_own(&granted)).await?;
        let (entry, permit, receipt) = keys.ok_or(LocalError::NothingHere)?;
        Ok(self.door.open(permit, receipt, &entry, from).await?)
    }

    /// Opens a study: one audit entry for all of its instances. Errors: [`LocalError`].
    pub async fn study(
        &self,
        asker: &Asker,
        document: DocumentId,
        correlation: Correlation,
    ) -> Result<ReleasedStudy, LocalError> {
        let granted = self.granted(asker, document, correlation);
        let custodian = self.custodian.clone();
        let keys = blocking(move || custodian.release_own(&granted)).await?;
        let (entry, permit, receipt) = keys.ok_or(LocalError::NothingHere)?;
        Ok(self.door.open_study(permit, receipt, &entry).await?)
    }
}
