//! Tickets and frames of the bulk lane, on a lane of its own and over the control channel (T16, T19).

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use hie_node_pki::config::Channel;
use hie_protocol::cbor;
use hie_protocol::id::Ticket;
use hie_protocol::refusal::Refusal;
use hie_protocol::retrieval::{Ask, Item, Refused};
use hie_protocol::version::PROTOCOL_BULK;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use super::{Evil, Found, Script};

fn ask(evil: &Evil, item: Item, from: u64) -> Vec<u8> {
    let ask = Ask {
        ticket: Ticket::new(evil.fresh()),
        item,
        from,
    };
    frame(1, &cbor::encode(&ask).unwrap())
}

fn frame(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = u32::try_from(body.len()).unwrap().to_be_bytes().to_vec();
    bytes.push(kind);
    bytes.extend_from_slice(body);
    bytes
}

/// The refusal that comes back; none when the other side closes.
async fn answer<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, bytes: &[u8]) -> Result<Option<Refusal>, String> {
    let talk = async {
        stream.write_all(bytes).await.ok()?;
        stream.flush().await.ok()?;
        let (length, kind) = (stream.read_u32().await.ok()?, stream.read_u8().await.ok()?);
        let mut body = vec![0; usize::try_from(length).unwrap()];
        stream.read_exact(&mut body).await.ok()?;
        Some((kind, body))
    };
    match tokio::time::timeout(Duration::from_secs(10), talk).await {
        Ok(Some((5, body))) => Ok(Some(cbor::decode::<Refused>(&body, 1024).unwrap().refusal)),
        Ok(Some((kind, body))) => Err(format!("a frame of kind {kind} with {} bytes", body.len())),
        Ok(None) => Ok(None),
        Err(_) => Err("no answer".to_owned()),
    }
}

async fn lane(evil: Arc<Evil>, bytes: Vec<u8>, wanted: Option<Refusal>) -> Found {
    let stream = evil.tls(evil.bulk, Channel::Bulk).await;
    let mut stream = stream.map_err(|error| error.to_string())?;
    let found = answer(&mut stream, &bytes).await?;
    if found == wanted {
        Ok(())
    } else {
        Err(format!("expected {wanted:?}, got {found:?}"))
    }
}

fn one(
    name: &'static str,
    counted: Option<&'static str>,
    act: fn(Arc<Evil>) -> futures::future::BoxFuture<'static, Found>,
) -> Script {
    Script {
        name,
        threat: "T16",
        counted,
        act,
    }
}

pub(super) fn scripts() -> Vec<Script> {
    let nothing = Some("ticket");
    vec![
        one("a ticket that nobody gave", nothing, |evil| {
            let bytes = ask(&evil, Item::Document, 0);
            lane(evil, bytes, Some(Refusal::NothingHere)).boxed()
        }),
        one("an instance far out of range", nothing, |evil| {
            let bytes = ask(&evil, Item::Instance(u32::MAX), u64::MAX);
            lane(evil, bytes, Some(Refusal::NothingHere)).boxed()
        }),
        one("all instances of nothing", nothing, |evil| {
            let bytes = ask(&evil, Item::InstancesFrom(u32::MAX), u64::MAX);
            lane(evil, bytes, Some(Refusal::NothingHere)).boxed()
        }),
        one("a ticket that nobody gave, over the control channel", nothing, |evil| {
            async move {
                let pipe = evil.line().await?.open(PROTOCOL_BULK).await;
                let mut pipe = pipe.map_err(|error| error.to_string())?.ok_or("not taken")?;
                match answer(&mut pipe, &ask(&evil, Item::Document, 0)).await? {
                    Some(Refusal::NothingHere) => Ok(()),
                    other => Err(format!("{other:?}")),
                }
            }
            .boxed()
        }),
        one("a lane frame over its limit", None, |evil| {
            lane(evil, vec![0xff, 0xff, 0xff, 0xff, 1], None).boxed()
        }),
        one("content in place of an ask", None, |evil| {
            lane(evil, frame(3, &[0; 100]), None).boxed()
        }),
        one("an ask that is no ask", None, |evil| {
            lane(evil, frame(1, &[0xff; 100]), None).boxed()
        }),
        one("more lanes than a member may have", None, |evil| lanes(evil).boxed()),
    ]
}

async fn lanes(evil: Arc<Evil>) -> Found {
    let mut held = Vec::new();
    for _ in 0..16 {
        let stream = evil.tls(evil.bulk, Channel::Bulk).await;
        held.push(stream.map_err(|error| error.to_string())?);
    }
    let extra = evil.tls(evil.bulk, Channel::Bulk).await;
    let mut extra = extra.map_err(|error| error.to_string())?;
    match answer(&mut extra, &[]).await? {
        Some(Refusal::Budget) | None => Ok(()),
        other => Err(format!("{other:?}")),
    }
}
