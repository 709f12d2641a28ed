//! The registry over HTTP: statuses, error codes and bodies that serializers go by.

use serde_json::{Value, json};

use super::{http_client, registry_here};

struct Client(reqwest::Client, String);

impl Client {
    async fn call(&self, method: &str, path: &str, body: Value) -> (u16, Value) {
        let method = method.parse().unwrap();
        let mut request = self.0.request(method, format!("{}{path}", self.1));
        if !body.is_null() {
            request = request
                .header("content-type", "application/vnd.schemaregistry.v1+json")
                .body(body.to_string());
        }
        let response = request.send().await.unwrap();
        let status = response.status().as_u16();
        (status, response.json().await.unwrap())
    }
    async fn get(&self, path: &str) -> (u16, Value) {
        self.call("GET", path, Value::Null).await
    }
}

#[tokio::test]
async fn a_schema_goes_in_and_comes_out() {
    let registry = registry_here().await;
    let client = Client(http_client(), registry.url());
    let long = json!({ "schema": "{\"type\": \"long\"}" });
    let register = client.call("POST", "/subjects/a%2Fb-value/versions", long.clone()).await;
    assert_eq!(register, (200, json!({ "id": 1 })));
    assert_eq!(client.get("/subjects").await, (200, json!(["a/b-value"])));
    assert_eq!(client.get("/subjects/a%2Fb-value/versions").await, (200, json!([1])));
    assert_eq!(
        client.get("/schemas/ids/1").await,
        (200, json!({ "schema": "{\"type\": \"long\"}" }))
    );
    let whole = json!({
        "subject": "a/b-value", "version": 1, "id": 1, "schema": "{\"type\": \"long\"}"
    });
    assert_eq!(client.get("/subjects/a%2Fb-value/versions/latest").await, (200, whole.clone()));
    assert_eq!(client.get("/subjects/a%2Fb-value/versions/1").await, (200, whole.clone()));
    assert_eq!(client.call("POST", "/subjects/a%2Fb-value", long).await, (200, whole));
    let users = json!([{ "subject": "a/b-value", "version": 1 }]);
    assert_eq!(client.get("/schemas/ids/1/versions").await, (200, users));
    let deleted = client.call("DELETE", "/subjects/a%2Fb-value", Value::Null).await;
    assert_eq!(deleted, (200, json!([1])));
    assert_eq!(client.get("/subjects").await, (200, json!([])));
    registry.shutdown().await;
}

#[tokio::test]
async fn errors_have_code_and_message() {
    let registry = registry_here().await;
    registry.register("known", "\"long\"").unwrap();
    let client = Client(http_client(), registry.url());
    let schema = |text: &str| json!({ "schema": text });
    for (method, path, body, status, code) in [
        ("GET", "/schemas/ids/7", Value::Null, 404, 40403),
        ("GET", "/schemas/ids/x", Value::Null, 404, 404),
        ("GET", "/subjects/nobody/versions", Value::Null, 404, 40401),
        ("GET", "/subjects/known/versions/9", Value::Null, 404, 40402),
        ("GET", "/subjects/known/versions/zero", Value::Null, 422, 42202),
        ("POST", "/subjects/known", schema("\"int\""), 404, 40403),
        ("POST", "/subjects/known/versions", schema("{"), 422, 42201),
        ("POST", "/subjects/known/versions", json!({ "no": 1 }), 422, 422),
        ("PUT", "/config", json!({ "compatibility": "MAYBE" }), 422, 42203),
        ("GET", "/config/known", Value::Null, 404, 40408),
        ("DELETE", "/subjects/nobody", Value::Null, 404, 40401),
        ("GET", "/nowhere", Value::Null, 404, 404),
    ] {
        let (got, answer) = client.call(method, path, body).await;
        assert_eq!((got, &answer["error_code"]), (status, &json!(code)), "{method} {path}");
        assert!(answer["message"].is_string());
    }
}

#[tokio::test]
async fn compatibility_is_stored_and_read_back() {
    let registry = registry_here().await;
    let client = Client(http_client(), registry.url());
    let level = |level: &str| (200, json!({ "compatibilityLevel": level }));
    assert_eq!(client.get("/config").await, level("NONE"));
    let full = json!({ "compatibility": "FULL" });
    assert_eq!(client.call("PUT", "/config", full.clone()).await, (200, full));
    assert_eq!(client.get("/config/s?defaultToGlobal=true").await, level("FULL"));
}
