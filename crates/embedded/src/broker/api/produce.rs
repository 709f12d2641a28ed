//! Writing: Produce and InitProducerId.

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::produce_response::{PartitionProduceResponse, TopicProduceResponse};
use kafka_protocol::messages::{
    InitProducerIdRequest, InitProducerIdResponse, ProduceResponse, ProducerId, TopicName,
};

use crate::broker::requests::Produce;
use crate::broker::state::{Broker, Refusal};

pub(super) fn produce(broker: &Broker, request: Produce) -> ProduceResponse {
    let transactional = request.transactional;
    let bad_acks = !(-1..=1).contains(&request.acks);
    let topics = request.topics.into_iter().map(|(name, partitions)| {
        let topic = broker.topic(&name);
        let partitions = partitions.into_iter().map(|(index, records)| {
            let result = match &topic {
                _ if transactional => Err(Refusal::new(
                    ResponseError::TransactionalIdAuthorizationFailed,
                    "the embedded broker offers no transactions",
                )),
                _ if bad_acks => {
                    Err(Refusal::new(ResponseError::InvalidRequiredAcks, "acks is -1, 0 or 1"))
                }
                None => Err(Refusal::new(
                    ResponseError::UnknownTopicOrPartition,
                    format!("there is no topic {}", &*name),
                )),
                Some(topic) => broker.append(topic, index, &records),
            };
            let answer = PartitionProduceResponse::default().with_index(index);
            match result {
                Ok(at) => answer
                    .with_base_offset(at.base_offset)
                    .with_log_append_time_ms(at.append_time)
                    .with_log_start_offset(at.log_start),
                Err(refused) => {
                    tracing::debug!(topic = &*name, index, "refused: {}", refused.message);
                    answer
                        .with_base_offset(-1)
                        .with_error_code(refused.error.code())
                        .with_error_message(refused.text())
                }
            }
        });
        let partitions = partitions.collect();
        TopicProduceResponse::default()
            .with_name(TopicName(name.clone()))
            .with_partition_responses(partitions)
    });
    ProduceResponse::default().with_responses(topics.collect())
}

/// An id for an idempotent producer. With a transactional id it is refused by the one code that
/// every client takes as final, since none says "not offered".
pub(super) fn init_producer_id(
    broker: &Broker,
    request: &InitProducerIdRequest,
) -> InitProducerIdResponse {
    let refused =
        InitProducerIdResponse::default().with_producer_id(ProducerId(-1)).with_producer_epoch(-1);
    if let Some(id) = &request.transactional_id {
        tracing::warn!(
            transactional_id = id.as_str(),
            "a transactional producer was refused: the embedded broker offers no transactions"
        );
        let error = ResponseError::TransactionalIdAuthorizationFailed;
        return refused.with_error_code(error.code());
    }
    InitProducerIdResponse::default()
        .with_producer_id(ProducerId(broker.new_producer_id()))
        .with_producer_epoch(0)
}
