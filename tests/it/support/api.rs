//! Direct access to the platform's API, without the program under test: events that happen elsewhere.

use std::{
    fs,
    io::{Read, Write},
    os::unix::net::UnixStream,
    time::Duration,
};

use serde_json::{Value, json};

use super::{World, eventually};

impl World {
    /// Makes a call of the embedded platform's API.
    pub fn call(&self, method: &str, path: &str, body: &Value) -> Value {
        let mut socket = UnixStream::connect(self.root().join("local/socket")).unwrap();
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let request = format!(
            "{method} /api{path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        socket.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200"), "{method} {path}: {answer}");
        serde_json::from_str(body).unwrap()
    }

    pub fn play(&self, id: &str) -> Value {
        self.call("GET", &format!("/plays/{id}"), &Value::Null)
    }

    /// Returns the number of plays, without the destroyed ones that the platform still lists for a while.
    pub fn plays(&self) -> usize {
        let all = self.call("GET", "/plays", &Value::Null);
        let is_there = |play: &&Value| {
            let last = play["status"]["stateEvents"].as_array().unwrap().last().unwrap();
            !["DESTROYING", "DESTROYED"].iter().any(|state| last["state"] == *state)
        };
        all.as_array().unwrap().iter().filter(is_there).count()
    }

    /// Performs an action on a playground on behalf of another client.
    pub fn elsewhere(&self, id: &str, action: &str) {
        self.call("POST", &format!("/plays/{id}/actions"), &json!({"action": action, "maxPlayTimeMinutes": 0}));
    }

    pub fn state(&self, id: &str) -> String {
        let play = self.play(id);
        let last = play["status"]["stateEvents"].as_array().unwrap().last().unwrap().clone();
        last["state"].as_str().unwrap().to_owned()
    }

    /// Stops the playground on behalf of another client, and waits until it is stopped.
    pub fn stop_elsewhere(&self, id: &str) {
        self.elsewhere(id, "stop");
        self.until(id, "STOPPED");
    }

    pub fn until(&self, id: &str, state: &str) {
        eventually(&format!("playground {id} is {state}"), || self.state(id) == state);
    }

    /// Returns the number of restarts of the playground since it was created.
    pub fn restarts(&self, id: &str) -> usize {
        let play = self.play(id);
        let events = play["status"]["stateEvents"].as_array().unwrap();
        events.iter().filter(|event| event["state"] == "WARMING_UP").count() - 1
    }

    /// Returns the number of lines that contain `what` in the logs of all connections.
    pub fn logged(&self, what: &str) -> usize {
        let Ok(logs) = fs::read_dir(self.root().join("logs")) else { return 0 };
        let texts = logs.map(|log| fs::read_to_string(log.unwrap().path()).unwrap());
        texts.map(|text| text.lines().filter(|line| line.contains(what)).count()).sum()
    }

    /// Moves the record of a playground, by id or catalogue name, into the past, as if that much time had gone by.
    pub fn let_pass(&self, label: &str, time: Duration) {
        let earlier = |moment: &mut Value| {
            if let Some(at) = moment.as_u64() {
                *moment = json!(at - u64::try_from(time.as_millis()).unwrap());
            }
        };
        let mut record = self.remembered(label);
        for name in ["stopped", "deliberate", "cutOff", "sessionEnded", "due"] {
            earlier(&mut record[name]);
        }
        if record["wake"].is_object() {
            earlier(&mut record["wake"]["at"]);
        }
        fs::write(self.root().join(format!("memory.local/{label}.json")), record.to_string()).unwrap();
    }

    /// Returns the record of a playground.
    pub fn remembered(&self, label: &str) -> Value {
        let text = fs::read_to_string(self.root().join(format!("memory.local/{label}.json")));
        text.map(|text| serde_json::from_str(&text).unwrap()).unwrap_or_default()
    }
}
