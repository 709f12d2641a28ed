//! The requests the broker answers: which versions, and where each goes.

mod admin;
mod cluster;
mod configs;
mod fetch;
mod group;
mod group_admin;
mod offsets;
mod produce;

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages::{ApiKey, RequestHeader, ResponseHeader};
use kafka_protocol::protocol::buf::ByteBuf;
use kafka_protocol::protocol::{Decodable, Encodable};

use super::frame::{FrameError, decode};
use super::requests;
use super::state::Broker;

/// Every request that is answered: `(key, first version, last version)`. Fetch and Produce stop
/// before the versions that name topics by id only.
pub(crate) const OFFERED: [(ApiKey, i16, i16); 23] = [
    (ApiKey::Produce, 3, 11),
    (ApiKey::Fetch, 4, 12),
    (ApiKey::ListOffsets, 1, 7),
    (ApiKey::Metadata, 0, 12),
    (ApiKey::OffsetCommit, 2, 9),
    (ApiKey::OffsetFetch, 1, 9),
    (ApiKey::FindCoordinator, 0, 4),
    (ApiKey::JoinGroup, 0, 9),
    (ApiKey::Heartbeat, 0, 4),
    (ApiKey::LeaveGroup, 0, 5),
    (ApiKey::SyncGroup, 0, 5),
    (ApiKey::DescribeGroups, 0, 5),
    (ApiKey::ListGroups, 0, 4),
    (ApiKey::ApiVersions, 0, 4),
    (ApiKey::CreateTopics, 2, 7),
    (ApiKey::DeleteTopics, 1, 6),
    (ApiKey::DeleteRecords, 0, 2),
    (ApiKey::InitProducerId, 0, 4),
    (ApiKey::OffsetForLeaderEpoch, 2, 4),
    (ApiKey::DescribeConfigs, 1, 4),
    (ApiKey::DeleteGroups, 0, 2),
    (ApiKey::DescribeCluster, 0, 1),
    (ApiKey::CreatePartitions, 0, 3),
];

fn offered(key: i16, version: i16) -> Option<ApiKey> {
    let found = OFFERED.iter().find(|(api, ..)| *api as i16 == key)?;
    (found.1..=found.2).contains(&version).then_some(found.0)
}

/// One request in, at most one framed response out (a Produce that wants no acknowledgement gets
/// none).
///
/// # Errors
/// When the connection must be closed, as a Kafka broker does: the request cannot be understood.
pub(crate) async fn answer(broker: &Broker, frame: Bytes) -> Result<Option<Bytes>, FrameError> {
    let mut body = frame;
    let start = body.peek_bytes(0..8);
    let (key, version) = (i16(&start, 0), i16(&start, 2));
    let correlation = start.slice(4..8);
    let Some(api) = offered(key, version) else {
        if key == ApiKey::ApiVersions as i16 {
            // Clients ask in their newest version first and learn from this answer (KIP-511).
            let response = cluster::unsupported_version();
            return frame_of(&correlation, ApiKey::ApiVersions, 0, &response).map(Some);
        }
        return Err(FrameError::NotOffered { key, version });
    };
    let header = RequestHeader::decode(&mut body, api.request_header_version(version))
        .map_err(|e| FrameError::Malformed(e.to_string()))?;
    let request = Request { broker, body, version, header };
    let reply = Reply { correlation, api, version };
    dispatch(request, reply).await
}

struct Request<'a> {
    broker: &'a Broker,
    body: Bytes,
    version: i16,
    header: RequestHeader,
}

impl Request<'_> {
    fn decode<T: Decodable>(&self) -> Result<T, FrameError> {
        decode(&self.body, self.version)
    }
}

struct Reply {
    correlation: Bytes,
    api: ApiKey,
    version: i16,
}

impl Reply {
    fn with(&self, response: &impl Encodable) -> Result<Option<Bytes>, FrameError> {
        frame_of(&self.correlation, self.api, self.version, response).map(Some)
    }
}

async fn dispatch(request: Request<'_>, reply: Reply) -> Result<Option<Bytes>, FrameError> {
    let (broker, version) = (request.broker, request.version);
    let client = request.header.client_id.clone().unwrap_or_default();
    match reply.api {
        ApiKey::Produce => {
            let produce = requests::produce(&request.body, version)?;
            let quiet = produce.acks == 0;
            let response = produce::produce(broker, produce);
            if quiet { Ok(None) } else { reply.with(&response) }
        }
        ApiKey::Fetch => reply.with(&fetch::fetch(broker, request.decode()?).await),
        ApiKey::ListOffsets => {
            reply.with(&offsets::list_offsets(broker, request.decode()?, version))
        }
        ApiKey::OffsetForLeaderEpoch => {
            reply.with(&offsets::offset_for_leader_epoch(broker, request.decode()?))
        }
        ApiKey::Metadata => reply.with(&cluster::metadata(broker, request.decode()?, version)),
        ApiKey::ApiVersions => reply.with(&cluster::api_versions()),
        ApiKey::DescribeCluster => reply.with(&cluster::describe_cluster(broker)),
        ApiKey::FindCoordinator => {
            reply.with(&cluster::find_coordinator(broker, request.decode()?, version))
        }
        ApiKey::InitProducerId => {
            reply.with(&produce::init_producer_id(broker, &request.decode()?))
        }
        ApiKey::CreateTopics => {
            reply.with(&admin::create_topics(broker, request.decode()?, version))
        }
        ApiKey::DeleteTopics => {
            reply.with(&admin::delete_topics(broker, request.decode()?, version))
        }
        ApiKey::DeleteRecords => reply.with(&admin::delete_records(broker, request.decode()?)),
        ApiKey::CreatePartitions => {
            reply.with(&admin::create_partitions(broker, request.decode()?))
        }
        ApiKey::DescribeConfigs => {
            reply.with(&configs::describe_configs(broker, request.decode()?))
        }
        ApiKey::OffsetCommit => {
            reply.with(&group_admin::offset_commit(broker, request.decode()?, version))
        }
        ApiKey::OffsetFetch => {
            reply.with(&group_admin::offset_fetch(broker, request.decode()?, version))
        }
        ApiKey::JoinGroup => {
            reply.with(&group::join(broker, request.decode()?, client, version).await)
        }
        ApiKey::SyncGroup => reply.with(&group::sync(broker, request.decode()?).await),
        ApiKey::Heartbeat => reply.with(&group::heartbeat(broker, &request.decode()?)),
        ApiKey::LeaveGroup => reply.with(&group::leave(broker, request.decode()?, version)),
        ApiKey::DescribeGroups => reply.with(&group_admin::describe(broker, request.decode()?)),
        ApiKey::ListGroups => reply.with(&group_admin::list(broker, &request.decode()?, version)),
        ApiKey::DeleteGroups => reply.with(&group_admin::delete(broker, request.decode()?)),
        other => Err(FrameError::NotOffered { key: other as i16, version }),
    }
}

fn i16(bytes: &[u8], at: usize) -> i16 {
    i16::from_be_bytes([bytes[at], bytes[at + 1]])
}

fn frame_of(
    correlation: &[u8],
    api: ApiKey,
    version: i16,
    response: &impl Encodable,
) -> Result<Bytes, FrameError> {
    let unsendable = |e: &dyn std::fmt::Display| {
        FrameError::Malformed(format!("the response to {api:?} v{version} does not encode: {e}"))
    };
    let mut id = [0; 4];
    id.copy_from_slice(correlation);
    let header = ResponseHeader::default().with_correlation_id(i32::from_be_bytes(id));
    let mut out = BytesMut::new();
    out.put_i32(0);
    header.encode(&mut out, api.response_header_version(version)).map_err(|e| unsendable(&e))?;
    response.encode(&mut out, version).map_err(|e| unsendable(&e))?;
    let length = i32::try_from(out.len() - 4).map_err(|e| unsendable(&e))?;
    out[..4].copy_from_slice(&length.to_be_bytes());
    Ok(out.freeze())
}
