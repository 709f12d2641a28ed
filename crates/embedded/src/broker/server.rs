//! Connections: one task each, requests answered in the order they came.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::io::{AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::api;
use super::frame::{self, FrameError, MAX_SMALL_FRAME};
use super::state::Broker;

/// The most connections at once.
const MAX_CONNECTIONS: usize = 1_000;
/// How many requests larger than [`MAX_SMALL_FRAME`] are in memory at once, over all connections.
const MAX_LARGE_FRAMES: usize = 3;
/// A request that has begun must be complete after this long.
const BODY_TIMEOUT: Duration = Duration::from_secs(60);
/// A client that does not take its response for so long is gone.
const WRITE_TIMEOUT: Duration = Duration::from_secs(60);

/// Accepts until cancelled; ends when every connection has ended.
pub(crate) async fn serve(listener: TcpListener, broker: Arc<Broker>, stop: CancellationToken) {
    let connections = TaskTracker::new();
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let large = Arc::new(Semaphore::new(MAX_LARGE_FRAMES));
    connections.spawn(stop.clone().run_until_cancelled_owned(tick(broker.clone())));
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(cause) => {
                tracing::warn!(%cause, "a Kafka connection could not be accepted");
                // Out of file descriptors, most likely: trying again at once would only spin.
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let Ok(slot) = slots.clone().try_acquire_owned() else {
            tracing::warn!(%peer, "closed at once: {MAX_CONNECTIONS} Kafka connections are open");
            continue;
        };
        let (broker, large, stop) = (broker.clone(), large.clone(), stop.clone());
        connections.spawn(async move {
            let _slot = slot;
            match stop.run_until_cancelled(connection(stream, &broker, &large)).await {
                None | Some(Ok(())) => {}
                Some(Err(FrameError::Io(cause))) => {
                    tracing::debug!(%peer, %cause, "a Kafka connection broke");
                }
                Some(Err(cause)) => tracing::warn!(%peer, %cause, "a Kafka connection was closed"),
            }
        });
    }
    connections.close();
    connections.wait().await;
}

/// Lets time pass for the groups.
async fn tick(broker: Arc<Broker>) {
    let mut beat = tokio::time::interval(Duration::from_millis(500));
    loop {
        beat.tick().await;
        broker.groups.tick(Instant::now());
    }
}

async fn connection(
    stream: TcpStream,
    broker: &Broker,
    large: &Semaphore,
) -> Result<(), FrameError> {
    stream.set_nodelay(true)?;
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::with_capacity(64 << 10, reader);
    while let Some((size, key)) =
        frame::read_length(&mut reader, broker.config.max_frame_bytes).await?
    {
        let _permit = match size > MAX_SMALL_FRAME {
            true => large.acquire().await.ok(),
            false => None,
        };
        let body = timeout(BODY_TIMEOUT, frame::read_body(&mut reader, size, key));
        let body = body.await.map_err(|_| slow("sending a request"))??;
        if let Some(response) = api::answer(broker, body).await? {
            send(&mut writer, &response).await?;
        }
    }
    Ok(())
}

async fn send(
    writer: &mut (impl AsyncWriteExt + Unpin),
    response: &Bytes,
) -> Result<(), FrameError> {
    timeout(WRITE_TIMEOUT, writer.write_all(response)).await.map_err(|_| slow("reading"))??;
    Ok(())
}

fn slow(doing: &str) -> FrameError {
    let text = format!("the client was too slow in {doing}");
    FrameError::Io(std::io::Error::new(std::io::ErrorKind::TimedOut, text))
}
