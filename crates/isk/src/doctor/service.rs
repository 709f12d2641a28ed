//! What the service that runs knows of a table: it is asked as any client asks it.

use std::time::{Duration, Instant};

use anyhow::Result;
use isk_model::TopicName;
use isk_outbound::Authorities;
use isk_virtual_table::HOTSET;
use serde_json::Value;

use super::{Good, Options, Report, SLOW_LOAD, bad, ms, poor};
use crate::config::Config;

/// How long the service that runs may take to answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// What the service that runs says of the table.
pub(super) async fn running(
    config: &Config,
    options: &Options,
    topic: &TopicName,
    report: &mut Report,
) {
    let own =
        format!("{}://{}:{}", config.tls.scheme(), config.external_hostname, config.catalog.port);
    let base = options.catalog.as_deref().unwrap_or(&own).trim_end_matches('/').to_owned();
    let path = format!("{base}/v1/namespaces/{HOTSET}/tables/{topic}");
    let begun = Instant::now();
    let answer = ask(&path, options.token.as_deref(), None).await;
    let verdict = match answer {
        Err(error) => poor(
            format!("none answers at {base}: {error:#}"),
            "what a service has learnt of the table is not looked at; name it with --catalog",
        ),
        Ok((401 | 403, why)) => poor(
            format!("it does not say: {}", message(&why)),
            "give --token (ISK_DOCTOR_TOKEN) of a principal who may read the table",
        ),
        Ok((200, _)) => match begun.elapsed() > SLOW_LOAD {
            true => poor(
                format!("loads the table in {}", ms(begun)),
                "is it busy? isk_catalog_request_seconds, and its log",
            ),
            false => Good(format!("loads the table in {}", ms(begun))),
        },
        Ok((status, why)) => bad(format!("answers with {status}: {}", message(&why)), ""),
    };
    let answers = matches!(&verdict, Good(_));
    report.line("service", verdict);
    if !answers {
        return;
    }
    let all = serde_json::json!({"filter": true});
    let Ok((200, plan)) = ask(&format!("{path}/plan"), options.token.as_deref(), Some(&all)).await
    else {
        return;
    };
    let files = plan["file-scan-tasks"].as_array().map_or(&[][..], Vec::as_slice);
    let proven = files
        .iter()
        .filter(|file| file["delete-file-references"].as_array().is_none_or(Vec::is_empty))
        .count();
    if files.is_empty() {
        return;
    }
    let seen = format!("{proven} of {} files are proven", files.len());
    report.line("proven", match proven * 2 < files.len() {
        true => poor(
            seen,
            "the others are made when they are first read, and counted by reading: prover.topics or follow.topics",
        ),
        false => Good(seen),
    });
}

/// The status and the JSON of an answer.
async fn ask(url: &str, token: Option<&str>, body: Option<&Value>) -> Result<(u16, Value)> {
    let client = Authorities::new(None)?.client()?.timeout(PATIENCE).build()?;
    let mut request = match body {
        Some(body) => client.post(url).json(body),
        None => client.get(url),
    };
    if let Some(token) = token {
        request = request.bearer_auth(token);
    }
    let answer = request.send().await?;
    let status = answer.status().as_u16();
    Ok((status, answer.json().await.unwrap_or_default()))
}

fn message(answer: &Value) -> &str {
    answer["error"]["message"].as_str().unwrap_or("no reason is given")
}
