//! A playground's manifest, as `start --file` takes it: YAML, of which the platform gets the parts that a start may
//! bring along. Fields that this program does not know are passed on.

use std::{fs::File, io::Read, path::Path};

use serde::{
    Deserialize, Deserializer,
    de::{DeserializeSeed, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Value};

use crate::{
    error::{Error, Kind, Result},
    labs::{answer::drop_nulls, wire::CreatePlay},
};

/// The largest manifest, far above any that the platform would take.
const MAX: u64 = 1024 * 1024;

/// A manifest.
#[derive(Debug)]
pub(super) struct Manifest {
    /// The path by which it was named.
    path: String,
    /// The name of the playground that it describes; empty for none.
    name: String,
    /// The playground that it was made from; empty for none.
    base: String,
    machines: Vec<Value>,
    tabs: Vec<Value>,
    networks: Vec<Value>,
    init_tasks: Map<String, Value>,
}

/// The type of a field. YAML takes `1.30` for a number and `no` for a truth value where they are meant as texts.
enum Shape {
    /// A text, however it is written.
    Text,
    /// Anything.
    Any,
    /// A list of these.
    List(&'static Shape),
    /// These by name.
    Named(&'static Shape),
    /// An object with these fields, and others.
    Fields(&'static [(&'static str, &'static Shape)]),
}

use Shape::{Any, Fields, List, Named, Text};

static MACHINE: Shape = Fields(&[
    ("name", &Text),
    ("users", &List(&Fields(&[("name", &Text), ("welcome", &Text)]))),
    ("backend", &Text),
    ("drives", &List(&Fields(&[("source", &Text), ("mount", &Text), ("size", &Text), ("filesystem", &Text)]))),
    ("network", &Fields(&[("interfaces", &List(&Fields(&[("address", &Text), ("network", &Text)])))])),
    ("resources", &Fields(&[("ramSize", &Text)])),
    ("startupFiles", &List(&Fields(&[("path", &Text), ("content", &Text), ("mode", &Text), ("owner", &Text)]))),
]);

static TAB: Shape = Fields(&[
    ("id", &Text),
    ("kind", &Text),
    ("name", &Text),
    ("machine", &Text),
    ("access", &Text),
    ("hostRewrite", &Text),
    ("pathRewrite", &Text),
    ("url", &Text),
    ("pane", &Text),
]);

static TASK: Shape = Fields(&[
    ("name", &Text),
    ("machine", &Text),
    ("user", &Text),
    ("needs", &List(&Text)),
    ("run", &Text),
    ("conditions", &List(&Fields(&[("key", &Text), ("value", &Text)]))),
]);

static MANIFEST: Shape = Fields(&[
    ("kind", &Text),
    ("name", &Text),
    ("base", &Text),
    (
        "playground",
        &Fields(&[
            ("machines", &List(&MACHINE)),
            ("tabs", &List(&TAB)),
            ("networks", &List(&Fields(&[("name", &Text), ("subnet", &Text), ("gateway", &Text)]))),
            ("initTasks", &Named(&TASK)),
        ]),
    ),
]);

impl<'de> DeserializeSeed<'de> for &Shape {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        match self {
            Any => Value::deserialize(deserializer),
            Text => Option::<String>::deserialize(deserializer).map(|text| text.map_or(Value::Null, Value::String)),
            List(_) | Named(_) | Fields(_) => deserializer.deserialize_option(Reader(self)),
        }
    }
}

/// Reads a list or an object of that shape, or null.
struct Reader<'a>(&'a Shape);

impl<'de> Visitor<'de> for Reader<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if matches!(self.0, List(_)) { "a list" } else { "fields with values" })
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        match self.0 {
            List(_) => deserializer.deserialize_seq(self),
            _ => deserializer.deserialize_map(self),
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let List(shape) = self.0 else { return Err(A::Error::custom("a list where fields with values belong")) };
        let mut all = Vec::new();
        while let Some(item) = items.next_element_seed(*shape)? {
            all.push(item);
        }
        Ok(Value::Array(all))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut all = Map::new();
        while let Some(key) = members.next_key::<String>()? {
            let shape = match self.0 {
                Named(shape) => shape,
                Fields(fields) => fields.iter().find(|(name, _)| *name == key).map_or(&Any, |(_, shape)| *shape),
                List(_) | Text | Any => {
                    members.next_value::<IgnoredAny>()?;
                    return Err(A::Error::custom("fields with values where a list belongs"));
                }
            };
            let value = members.next_value_seed(shape)?;
            all.insert(key, value);
        }
        Ok(Value::Object(all))
    }
}

/// The YAML of a manifest.
struct Yaml(Value);

impl<'de> Deserialize<'de> for Yaml {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Yaml, D::Error> {
        MANIFEST.deserialize(deserializer).map(Yaml)
    }
}

impl Manifest {
    /// Reads a manifest; `-` is standard input.
    ///
    /// # Errors
    /// [`Kind::File`] when it cannot be read, [`Kind::Usage`] with the line when it is no manifest.
    pub(super) async fn read(path: &str) -> Result<Manifest> {
        let own = path.to_owned();
        // A pipe may take its time, and a signal must end the wait.
        let read = tokio::task::spawn_blocking(move || text(&own));
        let text = read.await.map_err(|e| Error::new(Kind::Internal, format!("cannot read the manifest: {e}")))??;
        let shown = if path == "-" { "standard input" } else { path };
        Manifest::parse(shown, &text)
    }

    fn parse(path: &str, text: &str) -> Result<Manifest> {
        let wrong = |words: String| {
            Error::new(Kind::Usage, format!("{path} is not a playground's manifest: {words}")).with_hint(
                "a manifest has `kind: playground`, and the machines, tabs, networks and initTasks below `playground:`",
            )
        };
        let Yaml(mut value) = serde_saphyr::from_str(text).map_err(|e| {
            let place = e.location().map(|at| format!("line {}, column {}: ", at.line(), at.column()));
            wrong(format!("{}{}", place.unwrap_or_default(), plain(&e.to_string())))
        })?;
        drop_nulls(&mut value);
        let Value::Object(mut top) = value else { return Err(wrong("it is empty".into())) };
        match top.get("kind").and_then(Value::as_str) {
            Some("playground") => {}
            Some(kind) => return Err(wrong(format!("its kind is `{kind}`"))),
            None => return Err(wrong("it has no `kind`".into())),
        }
        let mut playground = match top.remove("playground") {
            Some(Value::Object(fields)) => fields,
            _ => return Err(wrong("it has no `playground`".into())),
        };
        let mut text = |key: &str| match top.remove(key) {
            Some(Value::String(text)) => text,
            _ => String::new(),
        };
        let (name, base) = (text("name"), text("base"));
        let mut list = |key: &str| match playground.remove(key) {
            Some(Value::Array(items)) => items,
            _ => Vec::new(),
        };
        let (mut machines, tabs, networks) = (list("machines"), list("tabs"), list("networks"));
        machines.iter_mut().for_each(renew);
        let mut init_tasks = match playground.remove("initTasks") {
            Some(Value::Object(tasks)) => tasks,
            _ => Map::new(),
        };
        for (name, task) in &mut init_tasks {
            if let Some(task) = task.as_object_mut() {
                task.entry("name").or_insert_with(|| name.as_str().into());
            }
        }
        Ok(Manifest { path: path.to_owned(), name, base, machines, tabs, networks, init_tasks })
    }

    /// The names by which its playground may be started: its own, then its base's.
    ///
    /// # Errors
    /// [`Kind::Usage`] when it has neither.
    pub(super) fn names(&self) -> Result<Vec<&str>> {
        let names: Vec<&str> = [&*self.name, &*self.base].into_iter().filter(|name| !name.is_empty()).collect();
        match names.is_empty() {
            false => Ok(names),
            true => Err(Error::new(Kind::Usage, format!("{} has neither a `name` nor a `base`", self.path))
                .with_hint("name the playground to start: `labctl-ssh-proxy start NAME -f FILE`")),
        }
    }

    /// Adds its parts to a request.
    pub(super) fn add_to(&self, request: &mut CreatePlay) {
        request.machines.clone_from(&self.machines);
        request.tabs.clone_from(&self.tabs);
        request.networks.clone_from(&self.networks);
        request.init_tasks.clone_from(&self.init_tasks);
    }
}

/// The YAML reader's words, without its own way to name the place and its advice to programmers.
fn plain(words: &str) -> String {
    let words = words.lines().next().unwrap_or_default();
    let words = words.strip_prefix("error: ").unwrap_or(words);
    let words = words.split_once(": ").filter(|(at, _)| at.starts_with("line ")).map_or(words, |(_, rest)| rest);
    let words = words.split(", set ").next().unwrap_or_default();
    match words {
        "expected sequence start" => "a list belongs here, whose elements begin with `- `".to_owned(),
        "expected mapping start" => "fields with values belong here".to_owned(),
        other => other.to_owned(),
    }
}

fn text(path: &str) -> Result<String> {
    let mut text = String::new();
    let read = |from: &mut dyn Read, text: &mut String| from.take(MAX + 1).read_to_string(text);
    let shown = Path::new(if path == "-" { "standard input" } else { path });
    let done = match path {
        "-" => read(&mut std::io::stdin().lock(), &mut text),
        _ => File::open(path).and_then(|mut file| read(&mut file, &mut text)),
    };
    done.map_err(|e| Error::file("read", shown, &e))?;
    if text.len() as u64 > MAX {
        return Err(Error::new(Kind::Usage, format!("{} is larger than 1 MiB, and no manifest", shown.display())));
    }
    Ok(text)
}

/// Brings a machine of an old manifest, where `kernel` is a text, to the form of today.
fn renew(machine: &mut Value) {
    let Some(fields) = machine.as_object_mut() else { return };
    let source = match fields.get("kernel") {
        Some(Value::String(source)) => source.clone(),
        Some(Value::Number(number)) => number.to_string(),
        _ => return,
    };
    match source.is_empty() {
        true => drop(fields.remove("kernel")),
        false => drop(fields.insert("kernel".into(), serde_json::json!({ "source": source }))),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::Manifest;
    use crate::labs::wire::CreatePlay;

    fn parsed(text: &str) -> Manifest {
        Manifest::parse("x.yaml", text).unwrap()
    }

    #[test]
    fn what_a_start_may_bring_along_is_passed_on_as_it_is_written() {
        let manifest = parsed(
            "kind: playground\nname: mine\nbase: k3s\ntitle: T\nplayground:\n  networks:\n  - {name: lan, subnet: 10.0.0.0/8}\n  \
             machines:\n  - name: 01\n    kernel: 6.1\n    resources: {cpuCount: 2, ramSize: 4}\n    startupFiles:\n    \
             - {path: /x, mode: 0644, content: no}\n    future: {a: [1, yes]}\n  - name: b\n    kernel: {source: k}\n    \
             users: null\n  tabs:\n  - {kind: http-port, number: 80}\n  initTasks:\n    t:\n      run: 'true'\n      \
             init: true\n      timeout_seconds: 5\n      conditions: [{key: Version, value: 1.30}]\n",
        );
        assert_eq!(manifest.names().unwrap(), ["mine", "k3s"]);
        let mut request = CreatePlay { playground: "mine".into(), ..CreatePlay::default() };
        manifest.add_to(&mut request);
        let sent = json!({
            "playground": "mine",
            "safetyDisclaimerConsent": false,
            "networks": [{ "name": "lan", "subnet": "10.0.0.0/8" }],
            "machines": [
                { "name": "01", "kernel": { "source": "6.1" }, "resources": { "cpuCount": 2, "ramSize": "4" },
                  "startupFiles": [{ "path": "/x", "mode": "0644", "content": "no" }], "future": { "a": [1, true] } },
                { "name": "b", "kernel": { "source": "k" } }
            ],
            "tabs": [{ "kind": "http-port", "number": 80 }],
            "initTasks": { "t": { "name": "t", "run": "true", "init": true, "timeout_seconds": 5,
                                  "conditions": [{ "key": "Version", "value": "1.30" }] } }
        });
        assert_eq!(serde_json::to_value(&request).unwrap(), sent);
    }

    #[test]
    fn a_fault_is_named_with_its_line() {
        let wrong = |text: &str| Manifest::parse("x.yaml", text).unwrap_err().message().to_owned();
        for (text, words) in [
            ("kind: playground\nplayground:\n  machines:\n    name: a\n", "line 4, column 5: a list"),
            ("kind: playground\nplayground:\n  machines: [\n", "line "),
            ("kind: playground\nplayground: {machines: [{name: [a]}]}\n", "line 2"),
            ("kind: playground\nkind: x\n", "line 2, column 1: duplicate mapping key: kind"),
            ("kind: challenge\n", "its kind is `challenge`"),
            ("name: x\n", "it has no `kind`"),
            ("kind: playground\n", "it has no `playground`"),
            ("", "it is empty"),
            ("- a\n", "line 1"),
        ] {
            let said = wrong(text);
            assert!(said.starts_with("x.yaml is not a playground's manifest: ") && said.contains(words), "{said}");
            assert!(!said.contains('\n') && said.matches("line ").count() < 2, "{said}");
        }
        let nameless = parsed("kind: playground\nplayground: {}\n");
        assert_eq!(nameless.names().unwrap_err().message(), "x.yaml has neither a `name` nor a `base`");
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "(kind: playground\n)?(playground:\n)?[ a-z:{}\\[\\]\n&*!-]{0,60}") {
            let _ = Manifest::parse("x", &text);
        }
    }
}
