//! The wire itself: every offered version answers, and hostile bytes close one connection only.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages::*;
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use uuid::Uuid;

use super::{broker, topic};

async fn exchange(stream: &mut TcpStream, frame: &[u8]) -> std::io::Result<Bytes> {
    stream.write_all(&framed(frame)).await?;
    let mut response = vec![0; stream.read_u32().await? as usize];
    stream.read_exact(&mut response).await?;
    Ok(response.into())
}

fn frame_of<R: Request>(request: &R, version: i16) -> BytesMut {
    let mut frame = BytesMut::new();
    let header = RequestHeader::default()
        .with_request_api_key(R::KEY)
        .with_request_api_version(version)
        .with_correlation_id(77)
        .with_client_id(Some(StrBytes::from_static_str("test")));
    header.encode(&mut frame, R::header_version(version)).unwrap();
    request.encode(&mut frame, version).unwrap();
    frame
}

async fn ask<R: Request>(stream: &mut TcpStream, request: &R, version: i16) -> R::Response {
    let mut body = exchange(stream, &frame_of(request, version)).await.unwrap();
    let header = R::Response::header_version(version);
    let header = ResponseHeader::decode(&mut body, header).unwrap();
    assert_eq!(header.correlation_id, 77);
    let response = R::Response::decode(&mut body, version).unwrap();
    assert!(body.is_empty(), "key {} v{version}: {} bytes left over", R::KEY, body.len());
    response
}

struct Offered(ApiVersionsResponse);

impl Offered {
    fn versions<R: Request>(&self) -> std::ops::RangeInclusive<i16> {
        let found = self.0.api_keys.iter().find(|v| v.api_key == R::KEY).unwrap();
        assert!(found.min_version >= R::VERSIONS.min && found.max_version <= R::VERSIONS.max);
        found.min_version..=found.max_version
    }
}

/// Asks in every offered version, with a request made for that version.
macro_rules! in_every_version {
    ($stream:expr, $offered:expr, $request:ty, |$version:ident| $make:expr, |$response:ident| $check:expr) => {
        for $version in $offered.versions::<$request>() {
            let request: $request = $make;
            let $response = ask($stream, &request, $version).await;
            assert!($check, "v{}: {:?}", $version, $response);
        }
    };
}

fn name(text: &str) -> TopicName {
    TopicName(StrBytes::from_string(text.to_owned()))
}

fn text(text: &'static str) -> StrBytes {
    StrBytes::from_static_str(text)
}

#[tokio::test]
async fn every_offered_version_answers() {
    let broker = broker().await;
    broker.create_topic(&topic("t"), 1, &[]).unwrap();
    let stream = &mut TcpStream::connect(broker.bootstrap()).await.unwrap();
    let offered = Offered(ask(stream, &ApiVersionsRequest::default(), 0).await);

    in_every_version!(stream, offered, ApiVersionsRequest, |_v| Default::default(), |r| r
        .api_keys
        .len()
        == 23);
    let asked =
        |n: &str| metadata_request::MetadataRequestTopic::default().with_name(Some(name(n)));
    in_every_version!(
        stream,
        offered,
        MetadataRequest,
        |v| MetadataRequest::default()
            .with_topics(Some(vec![asked("t"), asked("b@d")]))
            .with_allow_auto_topic_creation(v < 4),
        |r| r.topics[0].partitions.len() == 1 && r.topics[1].error_code == 17
    );
    in_every_version!(
        stream,
        offered,
        MetadataRequest,
        |v| MetadataRequest::default().with_topics(if v == 0 { Some(vec![]) } else { None }),
        |r| r.topics.len() == 1
    );
    let id =
        ask(stream, &MetadataRequest::default().with_topics(None), 12).await.topics[0].topic_id;
    for (id, error) in [(id, 0), (Uuid::from_u128(9), 100)] {
        let by_id =
            metadata_request::MetadataRequestTopic::default().with_name(None).with_topic_id(id);
        let asked = MetadataRequest::default().with_topics(Some(vec![by_id]));
        assert_eq!(ask(stream, &asked, 12).await.topics[0].error_code, error);
    }
    in_every_version!(stream, offered, DescribeClusterRequest, |_v| Default::default(), |r| r
        .brokers
        .len()
        == 1);
    in_every_version!(
        stream,
        offered,
        FindCoordinatorRequest,
        |v| if v < 4 {
            FindCoordinatorRequest::default().with_key(text("g"))
        } else {
            FindCoordinatorRequest::default().with_coordinator_keys(vec![text("g")])
        },
        |r| r.port > 0 || r.coordinators[0].port > 0
    );
    in_every_version!(
        stream,
        offered,
        InitProducerIdRequest,
        |_v| InitProducerIdRequest::default().with_transactional_id(None),
        |r| r.producer_id.0 > 0
    );
    in_every_version!(
        stream,
        offered,
        InitProducerIdRequest,
        |_v| InitProducerIdRequest::default()
            .with_transactional_id(Some(TransactionalId(text("x")))),
        |r| r.error_code == 53 && r.producer_id.0 == -1
    );
    data_requests(stream, &offered).await;
    admin_requests(stream, &offered).await;
    group_requests(stream, &offered).await;
    // A version from the future: the list in version 0.
    let mut future = BytesMut::new();
    future.put_i16(18);
    future.put_i16(99);
    future.put_i32(5);
    future.put_slice(b"whatever follows");
    let mut answer = exchange(stream, &future).await.unwrap();
    assert_eq!(&answer.split_to(4)[..], [0, 0, 0, 5]);
    assert_eq!(ApiVersionsResponse::decode(&mut answer, 0).unwrap().error_code, 35);
}

async fn data_requests(stream: &mut TcpStream, offered: &Offered) {
    let garbage = produce_request::PartitionProduceData::default()
        .with_records(Some(Bytes::from_static(b"no batch")));
    let into = |n: &str| {
        produce_request::TopicProduceData::default()
            .with_name(name(n))
            .with_partition_data(vec![garbage.clone()])
    };
    in_every_version!(
        stream,
        offered,
        ProduceRequest,
        |_v| ProduceRequest::default().with_acks(-1).with_topic_data(vec![into("t"), into("nope")]),
        |r| r.responses[0].partition_responses[0].error_code == 2
            && r.responses[1].partition_responses[0].error_code == 3
    );
    let from = |offset| {
        fetch_request::FetchTopic::default().with_topic(name("t")).with_partitions(vec![
            fetch_request::FetchPartition::default()
                .with_fetch_offset(offset)
                .with_partition_max_bytes(1 << 20),
        ])
    };
    in_every_version!(
        stream,
        offered,
        FetchRequest,
        |_v| FetchRequest::default()
            .with_max_wait_ms(1)
            .with_min_bytes(1)
            .with_max_bytes(1 << 20)
            .with_topics(vec![from(0)]),
        |r| r.responses[0].partitions[0].high_watermark == 0
    );
    in_every_version!(
        stream,
        offered,
        FetchRequest,
        |_v| FetchRequest::default()
            .with_max_wait_ms(60_000)
            .with_min_bytes(1)
            .with_max_bytes(1 << 20)
            .with_topics(vec![from(5)]),
        |r| r.responses[0].partitions[0].error_code == 1
    );
    let at = |n: &str, timestamp| {
        list_offsets_request::ListOffsetsTopic::default().with_name(name(n)).with_partitions(vec![
            list_offsets_request::ListOffsetsPartition::default().with_timestamp(timestamp),
        ])
    };
    in_every_version!(
        stream,
        offered,
        ListOffsetsRequest,
        |_v| ListOffsetsRequest::default().with_topics(vec![
            at("t", -1),
            at("t", 5),
            at("t", -3),
            at("nope", -2)
        ]),
        |r| r.topics.iter().map(|t| (t.partitions[0].offset, t.partitions[0].error_code)).eq([
            (0, 0),
            (-1, 0),
            (-1, 0),
            (-1, 3)
        ])
    );
    let epoch = |epoch| {
        offset_for_leader_epoch_request::OffsetForLeaderTopic::default()
            .with_topic(name("t"))
            .with_partitions(vec![
                offset_for_leader_epoch_request::OffsetForLeaderPartition::default()
                    .with_leader_epoch(epoch),
            ])
    };
    in_every_version!(
        stream,
        offered,
        OffsetForLeaderEpochRequest,
        |_v| OffsetForLeaderEpochRequest::default().with_topics(vec![epoch(0), epoch(4)]),
        |r| r.topics.iter().map(|t| t.partitions[0].end_offset).eq([0, -1])
    );
}

async fn admin_requests(stream: &mut TcpStream, offered: &Offered) {
    in_every_version!(
        stream,
        offered,
        CreateTopicsRequest,
        |v| {
            let new = |n| {
                create_topics_request::CreatableTopic::default()
                    .with_name(name(n))
                    .with_num_partitions(2)
                    .with_replication_factor(1)
            };
            CreateTopicsRequest::default().with_topics(vec![new(&format!("made-{v}")), new("t")])
        },
        |r| r.topics.iter().map(|t| t.error_code).eq([0, 36])
    );
    in_every_version!(
        stream,
        offered,
        DeleteTopicsRequest,
        |v| if v < 6 {
            DeleteTopicsRequest::default()
                .with_topic_names(vec![name(&format!("made-{}", v + 1)), name("nope")])
        } else {
            let one = |n: &str| {
                delete_topics_request::DeleteTopicState::default().with_name(Some(name(n)))
            };
            DeleteTopicsRequest::default().with_topics(vec![one("made-7"), one("nope")])
        },
        |r| r.responses.iter().map(|t| t.error_code).eq([0, 3])
    );
    let until = |offset| {
        delete_records_request::DeleteRecordsTopic::default().with_name(name("t")).with_partitions(
            vec![delete_records_request::DeleteRecordsPartition::default().with_offset(offset)],
        )
    };
    in_every_version!(
        stream,
        offered,
        DeleteRecordsRequest,
        |_v| DeleteRecordsRequest::default().with_topics(vec![until(-1), until(9)]),
        |r| r.topics.iter().map(|t| t.partitions[0].error_code).eq([0, 1])
    );
    let more = create_partitions_request::CreatePartitionsTopic::default()
        .with_name(name("t"))
        .with_count(3);
    in_every_version!(
        stream,
        offered,
        CreatePartitionsRequest,
        |_v| CreatePartitionsRequest::default().with_topics(vec![more.clone()]),
        |r| r.results[0].error_code == 44
    );
    let of = |kind, n| {
        describe_configs_request::DescribeConfigsResource::default()
            .with_resource_type(kind)
            .with_resource_name(text(n))
            .with_configuration_keys(None)
    };
    in_every_version!(
        stream,
        offered,
        DescribeConfigsRequest,
        |_v| DescribeConfigsRequest::default().with_resources(vec![
            of(2, "t"),
            of(4, "1"),
            of(2, "nope"),
            of(9, "")
        ]),
        |r| r.results.iter().map(|x| (x.error_code, x.configs.is_empty())).eq([
            (0, false),
            (0, false),
            (3, true),
            (42, true)
        ])
    );
}

async fn group_requests(stream: &mut TcpStream, offered: &Offered) {
    let protocol = join_group_request::JoinGroupRequestProtocol::default().with_name(text("range"));
    for version in offered.versions::<JoinGroupRequest>() {
        let group = GroupId(StrBytes::from_string(format!("join-{version}")));
        let mut join = JoinGroupRequest::default()
            .with_group_id(group.clone())
            .with_session_timeout_ms(6_000)
            .with_rebalance_timeout_ms(if version > 0 { 6_000 } else { -1 })
            .with_protocol_type(text("consumer"))
            .with_protocols(vec![protocol.clone()]);
        let mut joined = ask(stream, &join, version).await;
        if version >= 4 {
            assert_eq!(joined.error_code, 79);
            join.member_id = joined.member_id;
            joined = ask(stream, &join, version).await;
        }
        assert_eq!((joined.error_code, joined.generation_id, joined.members.len()), (0, 1, 1));
        assert_eq!(joined.leader, joined.member_id);
        let id = joined.member_id;
        let sync_version = version.min(5);
        let plan = sync_group_request::SyncGroupRequestAssignment::default()
            .with_member_id(id.clone())
            .with_assignment(Bytes::from_static(b"plan"));
        let sync = SyncGroupRequest::default()
            .with_group_id(group.clone())
            .with_generation_id(1)
            .with_member_id(id.clone())
            .with_assignments(vec![plan]);
        assert_eq!(&ask(stream, &sync, sync_version).await.assignment[..], b"plan");
        let beat = HeartbeatRequest::default()
            .with_group_id(group.clone())
            .with_generation_id(1)
            .with_member_id(id.clone());
        assert_eq!(ask(stream, &beat, version.min(4)).await.error_code, 0);
        let leaving = version.min(5);
        let leave = LeaveGroupRequest::default().with_group_id(group.clone());
        let leave = if leaving < 3 {
            leave.with_member_id(id)
        } else {
            let member = leave_group_request::MemberIdentity::default().with_member_id(id);
            leave.with_members(vec![member])
        };
        let left = ask(stream, &leave, leaving).await;
        assert!(left.error_code == 0 && left.members.iter().all(|m| m.error_code == 0));
        assert_eq!(ask(stream, &beat, version.min(4)).await.error_code, 25);
    }
    let group = || GroupId(text("commits"));
    let position =
        offset_commit_request::OffsetCommitRequestPartition::default().with_committed_offset(5);
    let at = |n: &str| {
        offset_commit_request::OffsetCommitRequestTopic::default()
            .with_name(name(n))
            .with_partitions(vec![position.clone()])
    };
    in_every_version!(
        stream,
        offered,
        OffsetCommitRequest,
        |_v| OffsetCommitRequest::default()
            .with_group_id(group())
            .with_generation_id_or_member_epoch(-1)
            .with_topics(vec![at("t"), at("nope")]),
        |r| r.topics.iter().map(|t| t.partitions[0].error_code).eq([0, 3])
    );
    in_every_version!(
        stream,
        offered,
        OffsetFetchRequest,
        |v| if v < 8 {
            let asked = offset_fetch_request::OffsetFetchRequestTopic::default()
                .with_name(name("t"))
                .with_partition_indexes(vec![0, 1]);
            OffsetFetchRequest::default().with_group_id(group()).with_topics(Some(vec![asked]))
        } else {
            let asked = offset_fetch_request::OffsetFetchRequestGroup::default()
                .with_group_id(group())
                .with_topics(None);
            OffsetFetchRequest::default().with_groups(vec![asked])
        },
        |r| if r.groups.is_empty() {
            r.topics[0].partitions.iter().map(|p| p.committed_offset).eq([5, -1])
        } else {
            r.groups[0].topics[0].partitions.iter().map(|p| p.committed_offset).eq([5])
        }
    );
    in_every_version!(
        stream,
        offered,
        DescribeGroupsRequest,
        |_v| DescribeGroupsRequest::default().with_groups(vec![group(), GroupId(text("nobody"))]),
        |r| &*r.groups[0].group_state == "Empty" && &*r.groups[1].group_state == "Dead"
    );
    in_every_version!(stream, offered, ListGroupsRequest, |_v| ListGroupsRequest::default(), |r| r
        .groups
        .len()
        == 11);
    in_every_version!(
        stream,
        offered,
        DeleteGroupsRequest,
        |v| DeleteGroupsRequest::default().with_groups_names(vec![
            GroupId(StrBytes::from_string(format!("join-{v}"))),
            GroupId(text("nobody"))
        ]),
        |r| r.results.iter().map(|g| g.error_code).eq([0, 69])
    );
}

/// Sends bytes as they are and answers whether the broker closed the connection.
async fn closes(addr: SocketAddr, bytes: &[u8]) -> bool {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut answer = [0];
    let read = tokio::time::timeout(Duration::from_secs(10), stream.read(&mut answer)).await;
    matches!(read, Ok(Ok(0) | Err(_)))
}

fn framed(body: &[u8]) -> Vec<u8> {
    [&(body.len() as u32).to_be_bytes(), body].concat()
}

#[tokio::test]
async fn hostile_bytes_close_their_connection_only() {
    let broker = broker().await;
    let addr = broker.bootstrap();
    let header = |key: i16, version: i16, flexible: bool| {
        let mut out = BytesMut::new();
        out.put_i16(key);
        out.put_i16(version);
        out.put_i32(1);
        out.put_i16(-1);
        if flexible {
            out.put_u8(0);
        }
        out
    };
    let huge: Vec<u8> = vec![0xff, 0xff, 0xff, 0xff, 0x0f];
    let mut cases: Vec<(&str, Vec<u8>)> = vec![
        ("HTTP", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec()),
        ("a negative length", (-5i32).to_be_bytes().to_vec()),
        ("a tiny frame", framed(&[0, 18])),
        ("a length over the bound", [&i32::MAX.to_be_bytes()[..], &[0, 0]].concat()),
        ("a large frame that is no Produce", [&(2i32 << 20).to_be_bytes()[..], &[0, 3]].concat()),
        ("an unknown API", framed(&header(999, 0, false))),
        ("a version not offered", framed(&header(1, 17, true))),
        ("a cut header", framed(&[0, 3, 0, 0, 0, 0, 0, 1])),
        ("a client id that is not there", framed(&[0, 3, 0, 0, 0, 0, 0, 1, 0x7f, 0xff])),
    ];
    for (name, key, version, prefix) in [
        ("metadata", 3, 1, 0),
        ("delete records", 21, 0, 0),
        ("list offsets", 2, 1, 4),
        ("fetch", 1, 4, 4 + 4 + 4 + 4 + 1),
        ("produce", 0, 3, 2 + 2 + 4),
        ("describe groups", 15, 0, 0),
    ] {
        let mut body = header(key, version, false);
        body.put_bytes(if name == "produce" { 0xff } else { 0 }, prefix);
        body.put_i32(i32::MAX);
        cases.push((name, framed(&body)));
    }
    for (name, key, version, prefix) in [
        ("metadata, compact", 3, 9, 0),
        ("delete groups, compact", 42, 2, 0),
        ("find coordinator, compact", 10, 4, 1),
        ("list offsets, compact", 2, 6, 5),
    ] {
        let mut body = header(key, version, true);
        body.put_bytes(0, prefix);
        body.put_slice(&huge);
        cases.push((name, framed(&body)));
    }
    let mut produce = header(0, 9, true);
    produce.put_slice(&[0, 0xff, 0xff, 0, 0, 0, 1]);
    produce.put_slice(&huge);
    cases.push(("produce, compact", framed(&produce)));
    for (name, bytes) in cases {
        assert!(closes(addr, &bytes).await, "{name}");
    }
    // Every request, cut or with one byte changed, is survived.
    let good = frame_of(&MetadataRequest::default().with_topics(Some(vec![])), 9);
    let good = [good, frame_of(&ListGroupsRequest::default(), 4)];
    for frame in &good {
        for at in 0..frame.len() {
            for byte in [0, 0x7f, 0x80, 0xff] {
                let mut bad = frame.to_vec();
                bad[at] = byte;
                let mut stream = TcpStream::connect(addr).await.unwrap();
                let once = exchange(&mut stream, &bad);
                let _ = tokio::time::timeout(Duration::from_millis(20), once).await;
            }
        }
    }
    let stream = &mut TcpStream::connect(addr).await.unwrap();
    assert_eq!(ask(stream, &ApiVersionsRequest::default(), 3).await.api_keys.len(), 23);
}

#[tokio::test]
async fn requests_sent_at_once_are_answered_in_order() {
    let broker = broker().await;
    let mut stream = TcpStream::connect(broker.bootstrap()).await.unwrap();
    let mut all = Vec::new();
    for id in 0u32..50 {
        let mut frame = frame_of(&ApiVersionsRequest::default(), 2);
        frame[4..8].copy_from_slice(&id.to_be_bytes());
        all.extend(framed(&frame));
    }
    stream.write_all(&all).await.unwrap();
    for id in 0u32..50 {
        let mut answer = vec![0; stream.read_u32().await.unwrap() as usize];
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(answer[..4], id.to_be_bytes());
    }
}

#[tokio::test]
async fn a_fetch_waits_for_records_and_no_longer() {
    let broker = broker().await;
    let name_here = topic("wait");
    broker.create_topic(&name_here, 1, &[]).unwrap();
    let handle = broker.handle().clone();
    let mut stream = TcpStream::connect(broker.bootstrap()).await.unwrap();
    let partition = fetch_request::FetchPartition::default().with_partition_max_bytes(1 << 20);
    let asked = fetch_request::FetchTopic::default()
        .with_topic(name("wait"))
        .with_partitions(vec![partition]);
    let fetch = FetchRequest::default()
        .with_max_wait_ms(30_000)
        .with_min_bytes(1)
        .with_max_bytes(1 << 20)
        .with_topics(vec![asked]);
    let begun = std::time::Instant::now();
    let append = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let record = isk_embedded::ProducedRecord { timestamp_ms: 1, key: None, value: None };
        handle.append(&name_here, isk_model::KafkaPartition(0), &[record]).unwrap();
    };
    let (response, ()) = tokio::join!(ask(&mut stream, &fetch, 12), append);
    assert!(!response.responses[0].partitions[0].records.as_ref().unwrap().is_empty());
    assert!(begun.elapsed() < Duration::from_secs(20));
}
