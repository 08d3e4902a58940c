//! The node's certificate renews itself: the same key, a fresh certificate, no restart (SPEC P-RENEW).
//!
//! A certificate is renewed after two thirds of its life, and earlier where less than [`OUTAGE_MS`] would be left: the
//! authority may be away that long without a member losing its certificate. The time is spread by the node's key, so
//! that members that joined together do not come together. After a failure it is tried again with growing pauses; the
//! status counts the days. Nothing goes on past the end: the other members refuse an expired certificate.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hie_node_core::ports::blocking;
use hie_node_pki::config as tls;
use hie_node_pki::csr;
use hie_node_pki::identity::{IdentityCell, NodeIdentity};
use hie_node_pki::pem;
use hie_node_pki::pkcs7;
use hie_node_pki::x509::Facts;
use hie_protocol::id::{Millis, OrgId};

use crate::assemble::{Region, Trade};
use crate::board::Board;
use crate::clock;
use crate::fault::{Exit, Fault, Outcome};
use crate::home::{Home, write_private};
use crate::join::{Membership, authority_caller, body};
use crate::moment::write_words;

/// Outage of the authority after which every certificate still holds, in milliseconds: 72 h and a margin for retries.
pub const OUTAGE_MS: u64 = 80 * 60 * 60 * 1000;
/// First pause after a failed renewal.
pub const AGAIN_MIN: Duration = Duration::from_secs(60);
/// Longest pause after failed renewals.
pub const AGAIN_MAX: Duration = Duration::from_secs(60 * 60);
/// How often the worker looks at the clock.
pub const LOOK_EVERY: Duration = Duration::from_secs(60);

/// When a certificate is due to be renewed.
#[must_use]
pub fn due(facts: &Facts) -> Millis {
    let life = facts.not_after.since(facts.not_before);
    let two_thirds = (life / 3).saturating_mul(2);
    let before_outage = life.saturating_sub(OUTAGE_MS).max(life / 2);
    // Up to a twentieth of the life earlier, by the key: certain, and different for each member.
    let spread = facts.node.as_bytes().first().map_or(0, |byte| u64::from(*byte));
    let early = (life / 20).saturating_mul(spread) / 255;
    facts
        .not_before
        .plus(two_thirds.min(before_outage).saturating_sub(early))
}

/// Pause after that many failures in a row.
#[must_use]
pub fn pause(failures: u32) -> Duration {
    let doubled = AGAIN_MIN.saturating_mul(1_u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX));
    doubled.min(AGAIN_MAX)
}

/// Renews the certificate of a running node.
pub struct Renewer {
    home: Home,
    me: OrgId,
    root: [u8; 32],
    authority: String,
    identity: Arc<IdentityCell>,
    board: Arc<Board>,
}

impl Renewer {
    /// Over a node's parts.
    pub fn new(home: &Home, trade: &Trade, region: &Region, membership: &Membership) -> Outcome<Self> {
        Self::with(
            home,
            &trade.me,
            membership,
            Arc::clone(&region.identity),
            Arc::clone(&region.board),
        )
    }

    /// Over an identity cell alone.
    pub fn with(
        home: &Home,
        me: &OrgId,
        membership: &Membership,
        identity: Arc<IdentityCell>,
        board: Arc<Board>,
    ) -> Outcome<Self> {
        Ok(Self {
            home: home.clone(),
            me: me.clone(),
            root: membership.fingerprint()?,
            authority: membership.authority.clone(),
            identity,
            board,
        })
    }

    /// Renews when due at `now`; whether it did.
    pub async fn step(&self, now: Millis) -> Outcome<bool> {
        let facts = self.identity.load().facts().clone();
        if now < due(&facts) {
            return Ok(false);
        }
        match self.renew().await {
            Ok(until) => {
                self.board.renewed();
                tracing::info!(until = %write_words(until), "certificate renewed");
                Ok(true)
            }
            Err(fault) => {
                let left = facts.not_after.since(now);
                let (days, hours) = (left / crate::authority::DAY_MS, left / 3_600_000 % 24);
                tracing::error!(what = %fault.what, why = %fault.why, days, hours, "the certificate is NOT renewed");
                self.board.renewal_failed(now, format!("{} {}", fault.what, fault.why));
                Err(fault)
            }
        }
    }

    /// Asks for a fresh certificate, writes it, and puts it in force: the next handshake shows it.
    async fn renew(&self) -> Outcome<Millis> {
        let what = "The certificate cannot be renewed.";
        let report = "Report this.";
        let held = self.identity.load();
        let request = csr::make(held.key(), &self.me).map_err(Fault::because(Exit::Failed, what, report))?;
        let config = tls::renewal_client(self.root, Arc::clone(&self.identity), Arc::new(clock::System))
            .map_err(Fault::because(Exit::Failed, what, report))?;
        let client = authority_caller(config)?;
        let url = format!("https://{}/.well-known/est/simplereenroll", self.authority);
        let answer = client
            .post(url)
            .header("content-type", "application/pkcs10")
            .body(STANDARD.encode(request))
            .send()
            .await
            .map_err(Fault::because(
                Exit::Unreachable,
                "The region authority could not be reached.",
                "It is asked again by itself.",
            ))?;
        let status = answer.status().as_u16();
        if status != 200 {
            return Err(Fault::new(
                Exit::Refused,
                what,
                format!("the region authority answered {status}"),
                "Ask the region office.",
            ));
        }
        let untrusted = "Ask the region office; do not go on.";
        let text: Vec<u8> = body(answer)
            .await?
            .into_iter()
            .filter(|byte| !byte.is_ascii_whitespace())
            .collect();
        let message = STANDARD
            .decode(text)
            .map_err(Fault::because(Exit::Refused, what, untrusted))?;
        let leaf = pkcs7::read(&message)
            .map_err(Fault::because(Exit::Refused, what, untrusted))?
            .into_iter()
            .next()
            .unwrap_or_default();
        let mut chain = vec![leaf];
        chain.extend(held.chain().last().map(|root| root.to_vec()));
        let text: String = chain.iter().map(|one| pem::write(pem::CERTIFICATE, one)).collect();
        let fresh =
            NodeIdentity::new(held.key().clone(), chain).map_err(Fault::because(Exit::Refused, what, untrusted))?;
        let newer = fresh.facts().org.as_ref() == Some(&self.me) && fresh.facts().not_after > held.facts().not_after;
        if !newer {
            return Err(Fault::new(
                Exit::Refused,
                what,
                "the answer is for another member, or ends no later than the one at hand",
                untrusted,
            ));
        }
        let path = self.home.node_certificate();
        let written = blocking(move || write_private(&path, text.as_bytes())).await;
        written.map_err(Fault::because(Exit::Failed, what, "Check space and permissions."))?;
        let until = fresh.facts().not_after;
        self.identity.replace(fresh);
        Ok(until)
    }
}

/// Looks at the clock and renews when due, with growing pauses after failures.
pub async fn worker(renewer: Renewer) {
    let mut failures = 0_u32;
    loop {
        let wait = match renewer.step(clock::now()).await {
            Ok(_) => {
                failures = 0;
                LOOK_EVERY
            }
            Err(_) => {
                failures = failures.saturating_add(1);
                pause(failures)
            }
        };
        tokio::time::sleep(wait).await;
    }
}

/// How a certificate stands at `now`, for people: what is wrong with its fix, or none.
#[must_use]
pub fn outlook(facts: &Facts, now: Millis) -> Option<String> {
    let until = facts.not_after;
    if until <= now {
        let day = write_words(until);
        return Some(format!(
            "The certificate of this node ended on {day}. No organisation talks to it. Ask the region office for a new \
             invitation and run `hie join` with it."
        ));
    }
    // A tenth of the life later than due is more than any pause between tries.
    let late = due(facts).plus(until.since(facts.not_before) / 10);
    (now > late).then(|| {
        let left = until.since(now);
        let (days, hours) = (left / crate::authority::DAY_MS, left / 3_600_000 % 24);
        format!(
            "The certificate of this node ends on {}, in {days} days and {hours} hours, and is not renewed yet. Check \
             that the region authority is reachable from here.",
            write_words(until)
        )
    })
}

#[cfg(test)]
mod tests {
    use hie_node_pki::x509::Facts;
    use hie_protocol::id::{Millis, NodeKey};

    use super::{AGAIN_MAX, AGAIN_MIN, OUTAGE_MS, due, outlook, pause};

    const HOUR: u64 = 3_600_000;
    const START: Millis = Millis(1_795_436_523_456);

    fn facts(hours: u64, byte: u8) -> Facts {
        Facts {
            node: NodeKey::new([byte; 32]),
            public: None,
            org: None,
            authority: false,
            not_before: START,
            not_after: START.plus(hours * HOUR),
            serial: Vec::new(),
            self_issued: false,
        }
    }

    #[test]
    fn spec_p_renew_a_certificate_outlives_an_outage_that_begins_when_it_is_due() {
        for days in 7..=90 {
            for byte in [0, 9, 255] {
                let facts = facts(days * 24, byte);
                let due = due(&facts);
                assert!(facts.not_after.since(due) >= OUTAGE_MS, "{days} days");
                assert!(due.since(facts.not_before) <= days * 24 * HOUR * 2 / 3, "{days} days");
            }
        }
        // Shorter lives cannot: they are renewed when half is over, or a little before.
        let short = due(&facts(24, 0)).since(START);
        assert_eq!(short, 12 * HOUR);
        assert!(due(&facts(24, 255)).since(START) >= 10 * HOUR);
    }

    #[test]
    fn spec_p_renew_failures_are_tried_again_with_growing_pauses() {
        assert_eq!(pause(1), AGAIN_MIN);
        assert_eq!(pause(3), AGAIN_MIN * 4);
        assert_eq!((pause(12), pause(u32::MAX)), (AGAIN_MAX, AGAIN_MAX));
    }

    #[test]
    fn spec_p_renew_a_certificate_that_is_late_is_shouted_about_with_the_days_left() {
        let facts = facts(7 * 24, 0);
        assert_eq!(outlook(&facts, START.plus(4 * 24 * HOUR)), None);
        let late = outlook(&facts, START.plus(5 * 24 * HOUR)).unwrap_or_default();
        assert!(
            late.contains("in 2 days and 0 hours") && late.contains("not renewed"),
            "{late}"
        );
        let over = outlook(&facts, START.plus(7 * 24 * HOUR)).unwrap_or_default();
        assert!(over.contains("ended on") && over.contains("hie join"), "{over}");
    }
}
