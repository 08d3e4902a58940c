//! STOW-RS, QIDO-RS and WADO-RS.

use axum::body::Body;
use axum::http::Request;
use bytes::Bytes;
use futures::stream;
use hie_gateway_dialect::dicom::instance;
use hie_gateway_dialect::multipart::{MultipartType, PARTS_MAX, parse};
use serde_json::Value;

use super::world::{Client, DICOM_BASE, Reply, basic, series};

const KIND: &str = "multipart/related; type=\"application/dicom\"; boundary=B";

fn form(parts: &[&[u8]]) -> Vec<u8> {
    let mut body = Vec::new();
    for part in parts {
        body.extend_from_slice(b"--B\r\nContent-Type: application/dicom\r\n\r\n");
        body.extend_from_slice(part);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(b"--B--\r\n");
    body
}

async fn store(client: &Client, path: &str, kind: &str, body: Vec<u8>) -> Reply {
    client
        .call(
            "POST",
            path,
            "feed",
            &[("content-type", kind), ("accept", "application/dicom+json")],
            body,
        )
        .await
}

async fn filled(slices: u32) -> Client {
    let client = Client::new();
    let files: Vec<Vec<u8>> = series(slices).files().collect();
    let parts: Vec<&[u8]> = files.iter().map(Vec::as_slice).collect();
    let reply = store(&client, "/dicom-web/studies", KIND, form(&parts)).await;
    assert_eq!(reply.status, 200, "{}", String::from_utf8_lossy(&reply.body));
    client
}

fn parts(reply: &Reply) -> Vec<(String, Vec<u8>)> {
    let kind = MultipartType::parse(reply.header("content-type")).unwrap();
    let parts = parse(&reply.body, &kind.boundary, PARTS_MAX).unwrap();
    parts
        .into_iter()
        .map(|(headers, bytes)| (headers.content_type().unwrap().to_owned(), bytes))
        .collect()
}

fn count(answer: &Value, sequence: &str) -> usize {
    answer[sequence]["Value"].as_array().map_or(0, Vec::len)
}

#[tokio::test]
async fn stored_instances_come_back_byte_for_byte() {
    let client = filled(3).await;
    let file = series(3).file(2);
    for (path, expected) in [
        ("/dicom-web/studies/1.2.3", 3),
        ("/dicom-web/studies/1.2.3/series/1.2.3.4", 3),
        ("/dicom-web/studies/1.2.3/series/1.2.3.4/instances/1.2.3.4.2", 1),
    ] {
        for accept in [
            "*/*",
            "multipart/related; type=\"application/dicom\"; transfer-syntax=*",
            "multipart/related; type=application/dicom",
            "multipart/related; type=\"application/dicom\"; transfer-syntax=1.2.840.10008.1.2.1",
        ] {
            let reply = client.get_with(path, &[("accept", accept)]).await;
            assert_eq!(reply.status, 200, "{path} {accept}");
            let parts = parts(&reply);
            assert_eq!(parts.len(), expected);
            assert!(parts.iter().any(
                |(kind, bytes)| *bytes == file && kind == "application/dicom; transfer-syntax=1.2.840.10008.1.2.1"
            ));
        }
    }
    let single = client
        .get_with(
            "/dicom-web/studies/1.2.3/series/1.2.3.4/instances/1.2.3.4.2",
            &[("accept", "application/dicom")],
        )
        .await;
    assert_eq!((single.status.as_u16(), single.body.to_vec() == file), (200, true));
    for (path, accept) in [
        ("/dicom-web/studies/1.2.3", "application/dicom"),
        ("/dicom-web/studies/1.2.3", "image/png"),
        (
            "/dicom-web/studies/1.2.3",
            "multipart/related; type=\"application/dicom\"; transfer-syntax=1.2.840.10008.1.2.4.50",
        ),
    ] {
        assert_eq!(
            client.get_with(path, &[("accept", accept)]).await.status,
            406,
            "{accept}"
        );
    }
    for path in [
        "/dicom-web/studies/9.9",
        "/dicom-web/studies/1.2.3/series/9",
        "/dicom-web/studies/9.9/metadata",
    ] {
        assert_eq!(client.get(path).await.status, 404, "{path}");
    }
    for path in [
        "/dicom-web/studies/abc",
        "/dicom-web/studies/1..2/metadata",
        "/dicom-web/studies/1.2.3/series/%00",
    ] {
        assert_eq!(client.get(path).await.status, 400, "{path}");
    }
}

#[tokio::test]
async fn spec_g_fate_the_answer_to_a_store_names_every_instance_with_its_fate() {
    let client = Client::new();
    let file = series(1).file(1);
    let mixed = store(&client, "/dicom-web/studies", KIND, form(&[&file, b"no dicom"])).await;
    assert_eq!(mixed.status, 202);
    let answer = mixed.json();
    assert_eq!(
        (
            count(&answer, "00081199"),
            count(&answer, "00081198"),
            count(&answer, "0008119A")
        ),
        (1, 0, 1)
    );
    assert_eq!(answer["00081199"]["Value"][0]["00081155"]["Value"][0], "1.2.3.4.1");
    assert_eq!(answer["00081190"]["Value"][0], format!("{DICOM_BASE}/studies/1.2.3"));
    assert_eq!(answer["0008119A"]["Value"][0]["00081197"]["Value"][0], 0xC000);

    let elsewhere = store(&client, "/dicom-web/studies/9.9", KIND, form(&[&file])).await;
    assert_eq!(elsewhere.status, 409);
    assert_eq!(
        elsewhere.json()["00081198"]["Value"][0]["00081155"]["Value"][0],
        "1.2.3.4.1"
    );
    assert_eq!(
        store(&client, "/dicom-web/studies/1.2.3", KIND, form(&[&file]))
            .await
            .status,
        200
    );
    let text = form(&[&file])
        .windows(17)
        .position(|window| window == b"application/dicom")
        .unwrap();
    let mut other = form(&[&file]);
    other[text..text + 17].copy_from_slice(b"application/pdf  ");
    assert_eq!(store(&client, "/dicom-web/studies", KIND, other).await.status, 409);
}

#[tokio::test]
async fn spec_g_hostile_a_broken_multipart_is_refused_at_every_cut() {
    let file = series(1).file(1);
    let whole = form(&[&file, &file]);
    let second = whole.len() / 2;
    for cut in [
        0,
        1,
        2,
        3,
        4,
        5,
        20,
        44,
        45,
        46,
        100,
        second - 2,
        second - 1,
        second,
        second + 1,
        second + 30,
        whole.len() - 8,
        whole.len() - 6,
        whole.len() - 5,
        whole.len() - 4,
    ] {
        let client = Client::new();
        let reply = store(&client, "/dicom-web/studies", KIND, whole[..cut].to_vec()).await;
        let kept = client.twin.world().archive.len();
        assert_eq!(reply.status, if kept == 0 { 400 } else { 202 }, "cut at {cut}");
        assert!(
            kept == 0 || count(&reply.json(), "0008119A") == 1,
            "cut at {cut}: what is missing is said"
        );
    }
    let client = Client::new();
    for (kind, body, status) in [
        ("", b"".to_vec(), 415),
        ("application/dicom", file.clone(), 415),
        (
            "multipart/related; type=\"application/dicom+json\"; boundary=B",
            form(&[b"{}"]),
            415,
        ),
        ("multipart/related; type=\"application/dicom\"", form(&[&file]), 400),
        (
            "multipart/related; type=\"application/dicom\"; boundary=\"a b#\"",
            form(&[&file]),
            400,
        ),
        (
            "multipart/related; type=\"application/dicom\"; boundary=other",
            form(&[&file]),
            400,
        ),
        (KIND, b"--B--\r\n".to_vec(), 400),
        (KIND, vec![b'x'; 100_000], 400),
        (KIND, b"--B\r\nNoColon\r\n\r\nx\r\n--B--".to_vec(), 400),
        (
            KIND,
            [
                b"--B\r\nX: ".to_vec(),
                vec![b'x'; 20_000],
                b"\r\n\r\nx\r\n--B--".to_vec(),
            ]
            .concat(),
            400,
        ),
    ] {
        let request = Request::builder()
            .method("POST")
            .uri("/dicom-web/studies")
            .header("authorization", basic("feed"))
            .header("content-type", kind);
        let reply = client.send(request.body(Body::from(body)).unwrap()).await;
        assert_eq!(reply.status, status, "{kind}");
    }
    assert!(client.twin.world().archive.is_empty());
}

#[tokio::test]
async fn a_long_body_arrives_in_chunks_of_any_size() {
    for size in [1, 7, 61, 4096] {
        let client = Client::new();
        let files: Vec<Vec<u8>> = series(4).files().collect();
        let parts: Vec<&[u8]> = files.iter().map(Vec::as_slice).collect();
        let body = form(&parts);
        let chunks: Vec<Result<Bytes, std::io::Error>> = body
            .chunks(size)
            .map(|chunk| Ok(Bytes::copy_from_slice(chunk)))
            .collect();
        let request = Request::builder()
            .method("POST")
            .uri("/dicom-web/studies")
            .header("authorization", basic("feed"))
            .header("content-type", KIND);
        let reply = client
            .send(request.body(Body::from_stream(stream::iter(chunks))).unwrap())
            .await;
        assert_eq!(
            (reply.status.as_u16(), client.twin.world().archive.len()),
            (200, 4),
            "chunks of {size}"
        );
    }
}

#[tokio::test]
async fn queries_work_at_every_level() {
    let client = filled(3).await;
    for (path, expected) in [
        ("/dicom-web/studies", 1),
        ("/dicom-web/series", 1),
        ("/dicom-web/instances", 3),
        ("/dicom-web/studies/1.2.3/series", 1),
        ("/dicom-web/studies/1.2.3/instances", 3),
        ("/dicom-web/studies/1.2.3/series/1.2.3.4/instances", 3),
        ("/dicom-web/studies?PatientID=MRN77", 1),
        (
            "/dicom-web/studies?00100020=MRN77&includefield=00081030,StudyDescription&includefield=all",
            1,
        ),
        ("/dicom-web/studies?PatientID=other", 0),
        (
            "/dicom-web/studies?StudyInstanceUID=1.2.3&fuzzymatching=false&limit=101&offset=0",
            1,
        ),
        ("/dicom-web/studies?StudyInstanceUID=9.9", 0),
        ("/dicom-web/instances?SOPInstanceUID=1.2.3.4.2", 1),
        ("/dicom-web/studies?Modality=CT", 1),
        ("/dicom-web/studies/1.2.3/series?StudyInstanceUID=9.9", 0),
        ("/dicom-web/studies?PatientID=", 1),
        ("/dicom-web/instances?limit=2", 2),
        ("/dicom-web/instances?offset=2", 1),
        (
            "/dicom-web/instances?limit=99999999999999999999&offset=99999999999999999999",
            0,
        ),
    ] {
        let reply = client.get(path).await;
        if expected == 0 {
            assert_eq!((reply.status.as_u16(), reply.body.len()), (204, 0), "{path}");
        } else {
            assert_eq!(
                (reply.status.as_u16(), reply.json().as_array().unwrap().len()),
                (200, expected),
                "{path}"
            );
        }
    }
    let one = client.get("/dicom-web/instances?limit=1").await;
    assert!(
        one.header("warning")
            .starts_with("299 hie \"There are additional results")
    );
    assert_eq!(
        one.json()[0]["00081190"]["Value"][0],
        format!("{DICOM_BASE}/studies/1.2.3/series/1.2.3.4/instances/1.2.3.4.1")
    );
    assert!(
        client
            .get("/dicom-web/studies?fuzzymatching=true")
            .await
            .header("warning")
            .contains("fuzzymatching")
    );
    for path in [
        "/dicom-web/studies?limit=-1",
        "/dicom-web/studies?limit=x",
        "/dicom-web/studies?offset=1.5",
        "/dicom-web/studies?Nonsense=1",
        "/dicom-web/studies?includefield=Nonsense",
        "/dicom-web/studies?PatientID=%0a",
    ] {
        assert_eq!(client.get(path).await.status, 400, "{path}");
    }
    assert_eq!(
        client
            .get_with(
                "/dicom-web/studies",
                &[("accept", "multipart/related; type=\"application/dicom+xml\"")]
            )
            .await
            .status,
        406
    );
}

#[tokio::test]
async fn spec_g_base_metadata_links_lie_below_the_configured_base() {
    let client = filled(2).await;
    for (path, expected) in [
        ("/dicom-web/studies/1.2.3/metadata", 2),
        ("/dicom-web/studies/1.2.3/series/1.2.3.4/metadata", 2),
        (
            "/dicom-web/studies/1.2.3/series/1.2.3.4/instances/1.2.3.4.1/metadata",
            1,
        ),
    ] {
        let reply = client.get(path).await;
        assert_eq!(
            (reply.status.as_u16(), reply.header("content-type")),
            (200, "application/dicom+json")
        );
        let objects = reply.json();
        assert_eq!(objects.as_array().unwrap().len(), expected, "{path}");
        let uri = objects[0]["7FE00010"]["BulkDataURI"].as_str().unwrap();
        assert_eq!(
            uri,
            format!("{DICOM_BASE}/studies/1.2.3/series/1.2.3.4/instances/1.2.3.4.1/bulkdata/pixeldata")
        );
        let bulk = client.get(uri.strip_prefix("https://hie.example.org").unwrap()).await;
        assert_eq!(parts(&bulk)[0].1, instance::frame(&series(2).file(1), 1).unwrap().bytes);
    }
    let base = "/dicom-web/studies/1.2.3/series/1.2.3.4/instances/1.2.3.4.1/bulkdata";
    assert_eq!(
        parts(&client.get(&format!("{base}/00100020")).await)[0].1.trim_ascii(),
        b"MRN77"
    );
    for unknown in ["00100099", "nonsense", "00100020/1/00100020", "00100020/0", "../../x"] {
        assert_eq!(client.get(&format!("{base}/{unknown}")).await.status, 404, "{unknown}");
    }
}

#[tokio::test]
async fn frames_come_in_the_stored_syntax() {
    let client = filled(1).await;
    let pixels = instance::frame(&series(1).file(1), 1).unwrap().bytes;
    let path = "/dicom-web/studies/1.2.3/series/1.2.3.4/instances/1.2.3.4.1/frames";
    for accept in [
        "multipart/related; type=application/octet-stream; transfer-syntax=*",
        "multipart/related; type=\"application/octet-stream\"",
        "*/*",
    ] {
        let reply = client.get_with(&format!("{path}/1"), &[("accept", accept)]).await;
        assert_eq!(
            parts(&reply),
            [(
                "application/octet-stream; transfer-syntax=1.2.840.10008.1.2.1".to_owned(),
                pixels.clone()
            )],
            "{accept}"
        );
    }
    let single = client
        .get_with(&format!("{path}/1"), &[("accept", "application/octet-stream")])
        .await;
    assert_eq!(single.body.to_vec(), pixels);
    for (list, status) in [
        ("2", 400),
        ("0", 400),
        ("x", 400),
        ("1,2", 400),
        ("1,1", 200),
        ("99999999999", 400),
    ] {
        assert_eq!(client.get(&format!("{path}/{list}")).await.status, status, "{list}");
    }
    for accept in [
        "multipart/related; type=\"image/jpeg\"",
        "image/jpeg",
        "multipart/related; type=\"application/octet-stream\"; transfer-syntax=1.2.840.10008.1.2.4.50",
    ] {
        assert_eq!(
            client
                .get_with(&format!("{path}/1"), &[("accept", accept)])
                .await
                .status,
            406,
            "{accept}"
        );
    }
}

#[tokio::test]
async fn rendered_asks_the_renderer_and_checks_its_parameters() {
    let client = filled(1).await;
    let path = "/dicom-web/studies/1.2.3/series/1.2.3.4/instances/1.2.3.4.1";
    let drawn = client.get(&format!("{path}/rendered")).await;
    assert_eq!(
        (drawn.status.as_u16(), drawn.header("content-type")),
        (200, "image/png")
    );
    assert!(drawn.body.starts_with(b"\x89PNG\r\n\x1a\n"));
    // What cannot be drawn is the caller's to mend.
    client.twin.world().archive[0].bytes = Bytes::from_static(b"no picture");
    assert_eq!(client.get(&format!("{path}/rendered")).await.status, 400);
    let png: Bytes = Bytes::from_static(b"\x89PNG\r\n\x1a\n");
    client.twin.world().archive[0].bytes = png.clone();
    for query in [
        "rendered",
        "rendered?viewport=64,64&window=40,400,linear",
        "frames/1/rendered",
    ] {
        let reply = client
            .get_with(&format!("{path}/{query}"), &[("accept", "image/png")])
            .await;
        assert_eq!(
            (reply.status.as_u16(), reply.header("content-type"), &reply.body),
            (200, "image/png", &png),
            "{query}"
        );
    }
    for (query, status) in [
        ("rendered?viewport=0,0", 400),
        ("rendered?window=1,0", 400),
        ("frames/1,2/rendered", 400),
    ] {
        assert_eq!(client.get(&format!("{path}/{query}")).await.status, status, "{query}");
    }
    assert_eq!(
        client
            .get_with(&format!("{path}/rendered"), &[("accept", "video/mp4")])
            .await
            .status,
        406
    );
    client.twin.world().archive[0].facts.sop_class = "1.2.840.10008.5.1.4.1.1.104.1".into();
    client.twin.world().archive[0].bytes = series(1).file(1).into();
    assert_eq!(
        client
            .get_with(&format!("{path}/rendered"), &[("accept", "image/png")])
            .await
            .status,
        406
    );
}

#[tokio::test]
async fn a_damaged_stored_instance_costs_its_own_answer() {
    let client = filled(2).await;
    client.twin.world().archive[0].bytes = Bytes::from_static(b"damaged");
    for path in [
        "/dicom-web/studies/1.2.3/metadata",
        "/dicom-web/studies/1.2.3/series/1.2.3.4/instances/1.2.3.4.1/frames/1",
    ] {
        let reply = client.get(path).await;
        assert_eq!(reply.status, 500, "{path}");
        assert!(
            !String::from_utf8_lossy(&reply.body).contains("part 10"),
            "no internal text"
        );
    }
    assert_eq!(
        client
            .get("/dicom-web/studies/1.2.3/series/1.2.3.4/instances/1.2.3.4.2/metadata")
            .await
            .status,
        200
    );
    client.twin.world().archive.swap(0, 1);
    let reply = client.get("/dicom-web/studies/1.2.3/metadata").await;
    assert_eq!(&reply.body[..], b"(broken off)", "a half answer never looks whole");
}
