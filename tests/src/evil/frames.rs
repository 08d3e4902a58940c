//! Frames against the rules of encoding, size, time and version (T3, T19).

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use hie::clock;
use hie_protocol::bytes::Bytes;
use hie_protocol::id::IndexKey;
use hie_protocol::message::{Cursor, IndexMessage, LOOKUP_KEYS_MAX, Request, Response, STORE_RECORDS_MAX};
use hie_protocol::refusal::Refusal;
use hie_protocol::version::{PROTOCOL_REQUEST, ProtocolVersion, V1};
use tokio::io::AsyncWriteExt as _;

use super::{Answer, Evil, Found, Script, answer_on, expect};

/// A script that sends one frame, which is refused as malformed.
macro_rules! malformed {
    ($name:literal, $frame:expr) => {
        Script {
            name: $name,
            threat: "T19",
            counted: Some("malformed"),
            act: |evil| async move { evil.refused(&$frame, Refusal::Malformed).await }.boxed(),
        }
    };
}

/// `{"registry": {"have": 7}}` and what can be done to it.
const GOOD: &[u8] = b"\xa1\x68registry\xa1\x64have\x07";

fn lookup(keys: usize) -> Vec<u8> {
    let keys = (0..keys).map(|number| IndexKey::new([u8::try_from(number % 251).unwrap(); 32]));
    let message = IndexMessage::Lookup {
        id: 1,
        keys: keys.collect(),
        after: None,
    };
    Request::Index(message).encode().unwrap()
}

pub(super) fn scripts() -> Vec<Script> {
    let mut all = encodings();
    all.extend(limits());
    all.extend(versions());
    all
}

fn encodings() -> Vec<Script> {
    vec![
        malformed!("no bytes at all", []),
        malformed!("a byte behind the frame", [GOOD, b"\x00"].concat()),
        malformed!("indefinite length map", b"\xbf\x68registry\xa1\x64have\x07\xff"),
        malformed!("a head longer than needed", b"\xa1\x68registry\xa1\x64have\x18\x07"),
        malformed!("a floating-point number", b"\xa1\x68registry\xa1\x64have\xf9\x47\x00"),
        malformed!("a tag", b"\xa1\x68registry\xa1\x64have\xc1\x07"),
        malformed!("a map key twice", b"\xa1\x68registry\xa2\x64have\x07\x64have\x08"),
        malformed!(
            "map keys out of order",
            b"\xa1\x65hello\xa3\x68versions\x81\x01\x65clock\x00\x68registry\x00"
        ),
        malformed!("text that is not UTF-8", b"\xa1\x68registry\xa1\x64ha\xff\xfe\x07"),
        malformed!("nested a hundred thousand deep", vec![0x81; 100_000]),
        malformed!(
            "a length of four thousand million",
            b"\xa1\x68registry\x9b\x00\x00\x00\x00\xff\xff\xff\xff"
        ),
        malformed!("a request of no protocol", b"\xa1\x64drop\xa0"),
        malformed!("an answer in place of a request", Response::Taken.encode().unwrap()),
    ]
}

fn limits() -> Vec<Script> {
    vec![
        malformed!("a lookup of one key too many", lookup(LOOKUP_KEYS_MAX + 1)),
        malformed!("a store of one record too many", {
            let records = vec![Bytes(vec![1]); STORE_RECORDS_MAX + 1];
            Request::Index(IndexMessage::Store { id: 1, records }).encode().unwrap()
        }),
        Script {
            name: "a frame over the limit, by its head",
            threat: "T19",
            counted: Some("oversize"),
            act: |evil| async move { evil.bytes_refused(&[0x7f, 0xff, 0xff, 0xff], Refusal::Malformed).await }.boxed(),
        },
        Script {
            name: "a frame cut short",
            threat: "T19",
            counted: Some("malformed"),
            act: |evil| {
                async move {
                    let mut bytes = vec![0, 0, 1, 0];
                    bytes.extend_from_slice(GOOD);
                    evil.bytes_refused(&bytes, Refusal::Malformed).await
                }
                .boxed()
            },
        },
        Script {
            name: "a head and then silence",
            threat: "T3",
            counted: Some("slow"),
            act: |evil| {
                async move { expect(evil.line().await?.raw(&[0, 0, 1, 0], false).await, Refusal::Budget) }.boxed()
            },
        },
        Script {
            name: "one byte every half second",
            threat: "T3",
            counted: Some("slow"),
            act: |evil| drip(evil).boxed(),
        },
        Script {
            name: "a thousand requests begun and not finished",
            threat: "T3",
            counted: Some("over-budget"),
            act: |evil| many(evil).boxed(),
        },
        Script {
            name: "a flood of lookups",
            threat: "T10",
            counted: Some("over-budget"),
            act: |evil| flood(evil).boxed(),
        },
    ]
}

async fn drip(evil: Arc<Evil>) -> Found {
    let line = evil.line().await?;
    let pipe = line.open(PROTOCOL_REQUEST).await.map_err(|error| error.to_string())?;
    let mut pipe = pipe.ok_or("requests are not taken")?;
    let mut every = tokio::time::interval(Duration::from_millis(500));
    let begun = tokio::time::Instant::now();
    let mut bytes = [0, 0, 4, 0].into_iter().chain(std::iter::repeat(0x81));
    while begun.elapsed() < Duration::from_secs(15) {
        tokio::select! {
            answer = answer_on(&mut pipe) => return match answer {
                Ok(Response::Refused(Refusal::Budget)) | Err(_) => Ok(()),
                other => Err(format!("{other:?}")),
            },
            _ = every.tick() => {
                let byte = bytes.next().unwrap_or_default();
                if pipe.write_all(&[byte]).await.is_err() || pipe.flush().await.is_err() {
                    return Ok(());
                }
            }
        }
    }
    Err("a frame may take fifteen seconds for thirty bytes".to_owned())
}

async fn many(evil: Arc<Evil>) -> Found {
    let line = evil.dial().await.map_err(|error| error.to_string())?;
    let mut asked = tokio::task::JoinSet::new();
    for _ in 0..1000 {
        let line = line.clone();
        asked.spawn(async move { line.raw(&[0, 0, 1, 0], false).await });
    }
    let (mut refused, mut closed) = (0, 0);
    while let Some(answer) = asked.join_next().await {
        match answer.unwrap() {
            Answer::Said(said) if *said == Response::Refused(Refusal::Budget) => refused += 1,
            Answer::Closed => closed += 1,
            other => return Err(format!("{other:?}")),
        }
    }
    if refused + closed == 1000 {
        Ok(())
    } else {
        Err(format!("{refused} refused, {closed} closed"))
    }
}

async fn flood(evil: Arc<Evil>) -> Found {
    let line = evil.line().await?;
    let mut asked = tokio::task::JoinSet::new();
    for _ in 0..64 {
        let line = line.clone();
        asked.spawn(async move {
            let (mut refused, frame) = (0_usize, lookup(LOOKUP_KEYS_MAX));
            for _ in 0..100 {
                let answer = line.ask(&frame).await;
                refused += usize::from(answer == Answer::Said(Box::new(Response::Refused(Refusal::Budget))));
            }
            refused
        });
    }
    let refused: usize = asked.join_all().await.into_iter().sum();
    if refused > 0 {
        Ok(())
    } else {
        Err("6,400 lookups at once were all taken".to_owned())
    }
}

fn hello(versions: Vec<ProtocolVersion>) -> Vec<u8> {
    let hello = Request::Hello {
        versions,
        registry: 1,
        clock: clock::now(),
    };
    hello.encode().unwrap()
}

fn versions() -> Vec<Script> {
    vec![
        malformed!(
            "a greeting with too many versions",
            hello((1..=17).map(ProtocolVersion).collect())
        ),
        Script {
            name: "a version that nobody speaks, then requests all the same",
            threat: "T13",
            counted: Some("version"),
            act: |evil| {
                async move {
                    let line = evil.line().await?;
                    expect(line.ask(&hello(vec![ProtocolVersion(999)])).await, Refusal::Version)?;
                    let refused = expect(line.ask(GOOD).await, Refusal::Version);
                    line.ask(&hello(hie_protocol::version::SPOKEN.to_vec())).await;
                    refused
                }
                .boxed()
            },
        },
        Script {
            name: "a message of version 2 on a channel of version 1",
            threat: "T13",
            counted: Some("version"),
            act: |evil| {
                async move {
                    let line = evil.line().await?;
                    line.ask(&hello(vec![V1])).await;
                    let cursor = Cursor {
                        owner: evil.org.clone(),
                        handle: hie_protocol::id::RecordHandle::new([1; 16]),
                    };
                    let message = IndexMessage::Lookup {
                        id: evil.number(),
                        keys: vec![IndexKey::new([1; 32])],
                        after: Some(cursor),
                    };
                    let refused = expect(
                        line.ask(&Request::Index(message).encode().unwrap()).await,
                        Refusal::Version,
                    );
                    line.ask(&hello(hie_protocol::version::SPOKEN.to_vec())).await;
                    refused
                }
                .boxed()
            },
        },
    ]
}
