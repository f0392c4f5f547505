//! `kube` with the real kubectl, and an HTTPS server with a private certificate for a name other than the forward's.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
    sync::Arc,
    thread,
};

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Value, json};
use tokio_rustls::rustls::{
    ServerConfig, ServerConnection, StreamOwned,
    crypto::ring::default_provider,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};

use crate::support::{PROGRAM, World, eventually, needs, schema};

const TOKEN: &str = "the-token-of-the-playground";

/// Answers the requests of `kubectl get pods`, if they have the token.
fn answer(request: &str) -> (u16, Value) {
    if !request.contains(&format!("Authorization: Bearer {TOKEN}\r\n")) {
        return (
            401,
            json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 401, "reason": "Unauthorized"}),
        );
    }
    let path = request.split(' ').nth(1).unwrap().split('?').next().unwrap();
    match path {
        "/api" => (200, json!({"kind": "APIVersions", "versions": ["v1"]})),
        "/apis" => (200, json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": []})),
        "/api/v1" => (
            200,
            json!({"kind": "APIResourceList", "groupVersion": "v1", "resources": [
                {"name": "pods", "singularName": "pod", "namespaced": true, "kind": "Pod", "verbs": ["get", "list"]}]}),
        ),
        "/api/v1/namespaces/default/pods" => (
            200,
            json!({"kind": "PodList", "apiVersion": "v1", "metadata": {"resourceVersion": "1"}, "items": [
                {"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "web-0", "namespace": "default"}, "spec": {"containers": []}}]}),
        ),
        _ => {
            (404, json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 404, "reason": "NotFound"}))
        }
    }
}

fn serve(tcp: TcpStream, config: Arc<ServerConfig>) {
    let mut stream = StreamOwned::new(ServerConnection::new(config).unwrap(), tcp);
    let mut request = String::new();
    let mut byte = [0];
    while stream.read(&mut byte).is_ok_and(|n| n == 1) {
        request.push(char::from(byte[0]));
        if request.ends_with("\r\n\r\n") {
            let (status, body) = answer(&request);
            let body = body.to_string();
            let head = format!(
                "HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
                body.len()
            );
            if stream.write_all((head + &body).as_bytes()).and_then(|()| stream.flush()).is_err() {
                return;
            }
            request.clear();
        }
    }
}

/// Creates a world with a playground whose machine has a kubeconfig. Returns the playground's id and the kubeconfig.
fn cluster() -> (World, String, String) {
    let world = World::with_platform(&[]);
    let play = world.json(&["start", "shell", "--json"]);
    let id = play["id"].as_str().unwrap().to_owned();
    // A certificate for the machine's own name, by a private authority.
    let folder = world.home().join("pki");
    fs::create_dir(&folder).unwrap();
    let openssl = |args: &[&str]| {
        let said = world.output(world.program(needs("openssl")).args(args).current_dir(&folder));
        assert!(said.status.success(), "{said:?}");
    };
    openssl(&[
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-subj",
        "/CN=ca",
        "-days",
        "9",
        "-keyout",
        "ca.key",
        "-out",
        "ca.crt",
    ]);
    openssl(&[
        "req",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-subj",
        "/CN=api",
        "-keyout",
        "api.key",
        "-out",
        "api.csr",
    ]);
    fs::write(folder.join("ext"), "subjectAltName=DNS:shell-01\n").unwrap();
    openssl(&[
        "x509",
        "-req",
        "-in",
        "api.csr",
        "-CA",
        "ca.crt",
        "-CAkey",
        "ca.key",
        "-CAcreateserial",
        "-days",
        "9",
        "-extfile",
        "ext",
        "-out",
        "api.crt",
    ]);
    let certificate = CertificateDer::from_pem_file(folder.join("api.crt")).unwrap();
    let key = PrivateKeyDer::from_pem_file(folder.join("api.key")).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (stream, config) = (stream.unwrap(), Arc::clone(&config));
            thread::spawn(move || serve(stream, config));
        }
    });
    let ca = BASE64_STANDARD.encode(fs::read(folder.join("ca.crt")).unwrap());
    let kubeconfig = format!(
        "# written by the installer\napiVersion: v1\nkind: Config\nclusters:\n- cluster:\n    certificate-authority-data: {ca}\n    \
         server: https://shell-01:{port}  # the API\n  name: kubernetes\ncontexts:\n- context:\n    cluster: kubernetes\n    \
         user: admin\n  name: admin@kubernetes\ncurrent-context: admin@kubernetes\npreferences: {{}}\nusers:\n- name: admin\n  \
         user:\n    token: {TOKEN}\n"
    );
    let home = world.root().join("local/plays").join(&id).join("shell-01/home");
    fs::create_dir_all(home.join(".kube")).unwrap();
    fs::write(home.join(".kube/config"), &kubeconfig).unwrap();
    (world, id, kubeconfig)
}

/// A running `kube`.
struct Running {
    child: Child,
    ready: Value,
    /// The thread that reads the rest of the output.
    rest: Option<thread::JoinHandle<Vec<Value>>>,
}

impl Running {
    fn start(world: &World, args: &[&str]) -> Running {
        let mut command = world.command(&["--local", "kube", "--json"]);
        let child = command.args(args).stdout(Stdio::piped()).spawn().unwrap();
        let mut running = Running { child, ready: Value::Null, rest: None };
        let mut said = said(running.child.stdout.take().unwrap());
        running.ready = said.find(|event| event["event"] == "ready").expect("it has ended");
        running.rest = Some(thread::spawn(move || said.collect()));
        running
    }

    fn path(&self) -> PathBuf {
        self.ready["kubeconfig"].as_str().unwrap().into()
    }

    /// Ends it with a signal, after it was used.
    fn end(self, signal: &str) -> Option<i32> {
        let (code, rest) = self.stop(signal);
        assert!(code.is_none() || rest.iter().any(|event| event["event"] == "open"), "{rest:?}");
        code
    }

    fn stop(mut self, signal: &str) -> (Option<i32>, Vec<Value>) {
        kill(&self.child, signal);
        let code = self.child.wait().unwrap().code();
        (code, self.rest.take().unwrap().join().expect("each line is as the schema has it"))
    }
}

/// Parses the lines of the output, each checked against the schema.
fn said(stdout: ChildStdout) -> impl Iterator<Item = Value> {
    // A killed process may have left an incomplete line.
    let lines = BufReader::new(stdout).lines().map(Result::unwrap).filter(|line| line.ends_with('}'));
    lines.map(|line| {
        let event = serde_json::from_str(&line).unwrap();
        schema::check("kubeLine", &event);
        event
    })
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn kubectl(world: &World, args: &[&str]) -> Command {
    let mut command = world.program(needs("kubectl"));
    command.args(args);
    command
}

#[test]
fn the_real_kubectl_gets_an_answer_and_its_exit_code_is_ours() {
    let (world, id, _) = cluster();
    let kubectl = needs("kubectl");
    let kubectl = kubectl.to_str().unwrap();
    let said = world.local(&["kube", &id, "--", kubectl, "get", "pods", "-o", "name"]);
    assert_eq!(said.out, "pod/web-0\n", "{said:?}");
    assert_eq!((said.code(), said.err.as_str()), (0, ""));
    let said = world.local(&["kube", &id, "--", kubectl, "get", "pods", "-o", "name", "-n", "other"]);
    assert_eq!(said.code(), 1, "{said:?}");
    let said = world.local(&["kube", &id, "--", "sh", "-c", "test -f \"$KUBECONFIG\" && kill -TERM $$"]);
    assert_eq!(said.code(), 128 + 15, "{said:?}");
    let said = world.local(&["kube", &id, "--", "/no/such/program"]).failed(14);
    assert!(said.contains("cannot start"), "{said}");
    assert!(!world.root().join("kube").join(format!("{id}.yaml")).exists());
}

#[test]
fn a_cluster_that_its_init_task_makes_is_there_when_the_start_has_ended() {
    let (mut world, _, kubeconfig) = cluster();
    let (made, go) = (world.path("kubeconfig"), world.path("go"));
    fs::write(&made, kubeconfig).unwrap();
    let wait = format!("while ! test -e {}; do sleep 0.1; done", go.display());
    let task = format!("cluster={wait}; mkdir -p .kube && cp {} .kube/config", made.display());
    world.stop_platform();
    world.serve(&["--init-task", &task]);
    let start = |more: &[&str]| world.local(&[&["start", "shell", "--json"], more].concat()).ok();
    let id = |json: &str| serde_json::from_str::<Value>(json).unwrap()["id"].as_str().unwrap().to_owned();
    let early = id(&start(&["--no-wait-init"]));
    let said = world.local(&["kube", &early, "--", "true"]).failed(9);
    assert!(said.contains("init tasks are done") && said.contains("--init"), "{said}");
    fs::write(&go, "").unwrap();
    let id = id(&start(&[]));
    let kubectl = needs("kubectl");
    let said = world.local(&["kube", &id, "--", kubectl.to_str().unwrap(), "get", "pods", "-o", "name"]);
    assert_eq!((said.out.as_str(), said.code()), ("pod/web-0\n", 0), "{said:?}");
    world.local(&["wait", &early, "--init"]).ok();
    world.local(&["kube", &early, "--", "true"]).ok();
}

#[test]
fn only_server_and_name_differ_and_the_certificate_is_checked() {
    let (world, id, kubeconfig) = cluster();
    let running = Running::start(&world, &[&id]);
    let path = running.path();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let own = fs::read_to_string(&path).unwrap();
    let here = running.ready["servers"][0]["address"].as_str().unwrap();
    let there = running.ready["servers"][0]["to"].as_str().unwrap();
    let expected = kubeconfig.replace(
        &format!("server: https://{there}  # the API\n"),
        &format!("server: https://{here}  # the API\n    tls-server-name: \"shell-01\"\n"),
    );
    assert_eq!(own, expected);
    let get = |path: &str| world.output(kubectl(&world, &["get", "pods", "-o", "name"]).env("KUBECONFIG", path));
    assert_eq!(get(path.to_str().unwrap()).ok(), "pod/web-0\n");
    // A second one at the same time has its own file.
    let second = Running::start(&world, &[&id]);
    assert_ne!(second.path(), path);
    assert_eq!(get(second.path().to_str().unwrap()).ok(), "pod/web-0\n");
    // Without the name the certificate does not match, and with another authority it is not trusted.
    let wrong = world.home().join("wrong");
    fs::write(&wrong, own.replace("    tls-server-name: \"shell-01\"\n", "")).unwrap();
    assert!(get(wrong.to_str().unwrap()).failed(1).contains("x509"));
    let second_path = second.path();
    assert_eq!(second.end("TERM"), Some(143));
    assert_eq!(running.end("INT"), Some(130));
    assert!(!path.exists() && !second_path.exists(), "they lead nowhere now");
}

#[test]
fn a_merged_context_comes_and_goes() {
    let (world, id, _) = cluster();
    let context = format!("playground-{id}");
    let own = "# mine\napiVersion: v1\nkind: Config\nclusters:\n- name: home\n  cluster: {server: https://home}\ncontexts:\n\
               - name: home\n  context: {cluster: home, user: me}\ncurrent-context: home\nusers: []\n";
    let config = world.home().join(".kube/config");
    fs::create_dir(config.parent().unwrap()).unwrap();
    let real = world.home().join("dotfiles");
    fs::write(&real, own).unwrap();
    fs::set_permissions(&real, fs::Permissions::from_mode(0o640)).unwrap();
    std::os::unix::fs::symlink(&real, &config).unwrap();
    let pods = || world.output(&mut kubectl(&world, &["--context", &context, "get", "pods", "-o", "name"]));

    for (signal, code) in [("INT", Some(130)), ("HUP", Some(129)), ("KILL", None)] {
        let running = Running::start(&world, &[&id, "--merge"]);
        assert_eq!(running.ready["context"], *context);
        assert_eq!(pods().ok(), "pod/web-0\n");
        let merged = fs::read_to_string(&config).unwrap();
        assert!(own.lines().all(|line| merged.contains(line) || line == "users: []"), "{merged}");
        assert_eq!(world.output(&mut kubectl(&world, &["config", "current-context"])).ok(), "home\n");
        assert_eq!(running.end(signal), code);
        if code.is_none() {
            assert!(world.local(&["kube", &id, "--remove"]).ok().contains("no longer"));
        }
        assert_eq!(fs::read_to_string(&config).unwrap(), own, "byte for byte");
    }
    assert!(fs::symlink_metadata(&config).unwrap().is_symlink());
    assert_eq!(fs::metadata(&real).unwrap().permissions().mode() & 0o777, 0o640);
    assert!(world.local(&["kube", &id, "--remove"]).ok().contains("no context"));

    // kubectl rewrites the whole file.
    let running = Running::start(&world, &[&id, "--merge"]);
    world.output(&mut kubectl(&world, &["config", "use-context", &context])).ok();
    assert_eq!(world.output(&mut kubectl(&world, &["get", "pods", "-o", "name"])).ok(), "pod/web-0\n");
    assert_eq!(running.end("INT"), Some(130));
    let after = fs::read_to_string(&config).unwrap();
    assert!(!after.contains(&context) && after.contains("https://home"), "{after}");
    let contexts = world.output(&mut kubectl(&world, &["config", "get-contexts", "-o", "name"])).ok();
    assert_eq!(contexts, "home\n");

    // If there was no file before, there is none afterwards.
    let named = world.home().join("new/config");
    let mut command = world.command(&["--local", "kube", &id, "--merge", "--", "sh", "-c", "cat new/config"]);
    let said = world.output(command.env("KUBECONFIG", format!("none:{}", named.display())));
    assert!(said.ok().contains(&context));
    assert!(!named.exists());
    let left: Vec<_> = fs::read_dir(world.home()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().contains("labctl-ssh-proxy-")), "{left:?}");
}

/// The files that KUBECONFIG names are one configuration. Ours comes where kubectl puts what is new, and the current
/// context stays what it was.
#[test]
fn a_chain_of_files_is_one_configuration() {
    let (world, id, _) = cluster();
    let context = format!("playground-{id}");
    let prod = "apiVersion: v1\nkind: Config\nclusters: []\ncontexts: []\nusers: []\ncurrent-context: prod\n";
    for (case, (there, chain)) in [
        (&[("b", prod)][..], "a:b"),
        (&[("a", ""), ("b", prod)], "a:b"),
        (&[("b", prod), ("c", "")], ":a:b:c:b"),
        (&[], "a:b"),
        (&[], "a"),
        (&[("a", prod)], "a"),
    ]
    .into_iter()
    .enumerate()
    {
        // Those of kubectl, and ours.
        let [theirs, ours] = ["theirs", "ours"].map(|name| world.path(&format!("{name}{case}")));
        for home in [&theirs, &ours] {
            fs::create_dir(home).unwrap();
            there.iter().for_each(|(name, text)| fs::write(home.join(name), text).unwrap());
        }
        let below = |home: &Path| {
            let path = |name: &str| if name.is_empty() { String::new() } else { home.join(name).display().to_string() };
            chain.split(':').map(path).collect::<Vec<_>>().join(":")
        };
        let run = |mut command: Command, home: &Path| world.output(command.env("KUBECONFIG", below(home))).ok();
        let files_with = |home: &Path, word: &str| {
            let has = |path: &PathBuf| fs::read_to_string(path).is_ok_and(|text| text.contains(word));
            let mut files = vec![home.join("a"), home.join("b"), home.join("c"), world.path(".kube/config")];
            files.retain(has);
            files.iter().map(|path| path.file_name().unwrap().to_owned()).collect::<Vec<_>>()
        };
        let current = |home: &Path| {
            let view = run(kubectl(&world, &["config", "view", "-o", "jsonpath={.current-context}"]), home);
            view.trim().to_owned()
        };
        let before = current(&ours);
        run(kubectl(&world, &["config", "set-cluster", "probe", "--server=https://probe"]), &theirs);
        let where_theirs = files_with(&theirs, "probe");
        let _ = fs::remove_file(world.path(".kube/config"));

        let mut kube = world.command(&["--local", "kube", &id, "--json", "--merge"]);
        kube.stdout(Stdio::piped());
        let mut child = kube.env("KUBECONFIG", below(&ours)).spawn().unwrap();
        // Kept, because it ends without a reader of its events.
        let mut events = said(child.stdout.take().unwrap());
        let ready = events.find(|event| event["event"] == "ready").expect("it has ended");
        assert_eq!(ready["context"], *context);
        assert_eq!(files_with(&ours, &context), where_theirs, "{chain} {there:?}");
        let alone = chain.trim_matches(':').split(':').count() == 1 && before.is_empty();
        assert_eq!(current(&ours), if alone { context.clone() } else { before }, "{chain} {there:?}");
        kill(&child, "INT");
        child.wait().unwrap();
        assert_eq!(files_with(&ours, &context), Vec::<std::ffi::OsString>::new());
        for name in ["a", "b", "c"] {
            let text = there.iter().find(|(there, _)| *there == name).map(|(_, text)| (*text).to_owned());
            assert_eq!(fs::read_to_string(ours.join(name)).ok(), text, "{name} of {chain}");
        }
    }
}

/// kubectl never overwrites unasked either. It is found out before the playground is woken.
#[test]
fn what_cannot_be_merged_is_refused_before_a_wake() {
    let (world, id, _) = cluster();
    world.local(&["stop", &id]).ok();
    let name = format!("playground-{id}");
    let config = world.home().join(".kube/config");
    fs::create_dir(config.parent().unwrap()).unwrap();
    let own = |list: &str, body: &str| {
        format!("apiVersion: v1\nkind: Config\n{list}:\n- name: {name}\n  {body}\ncurrent-context: {name}\n")
    };
    let texts = [
        own("clusters", "cluster: {server: https://mine}"),
        own("contexts", "context: {cluster: a, user: a, namespace: prod}"),
        own("users", "user: {token: MY-OWN-TOKEN}"),
        r#"{"apiVersion": "v1", "kind": "Config", "clusters": [{"name": "a", "cluster": {"server": "https://a"}}]}"#
            .into(),
        "clusters: [{name: a, cluster: {server: https://a}}]\n".into(),
        "- 1\n".into(),
    ];
    for (n, text) in texts.iter().enumerate() {
        fs::write(&config, text).unwrap();
        let refused = world.local(&["kube", &id, "--merge", "--", "true"]).failed(13);
        assert!(refused.contains("leave out --merge"), "{refused}");
        assert_eq!(refused.contains("of your own"), n < 3, "{refused}");
        let said = world.local(&["kube", &id, "--remove"]).ok();
        assert_eq!(said.contains("is your own"), n < 3, "{said}");
        world.local(&["uninstall", "--dry-run"]).ok();
        assert_eq!(fs::read_to_string(&config).unwrap(), *text);
    }
    // The user's context may be in another file of the chain.
    fs::write(&config, "").unwrap();
    fs::write(world.path("other"), &texts[1]).unwrap();
    let mut command = world.command(&["--local", "kube", &id, "--merge", "--", "true"]);
    let chain = format!("{}:{}", config.display(), world.path("other").display());
    assert!(world.output(command.env("KUBECONFIG", chain)).failed(13).contains("other has a context"));
    fs::set_permissions(&config, fs::Permissions::from_mode(0o400)).unwrap();
    assert!(world.local(&["kube", &id, "--merge", "--", "true"]).failed(13).contains("read-only"));
    assert_eq!(world.json(&["list", "--json"])[0]["state"], "STOPPED");
}

#[test]
fn what_is_missing_is_said() {
    let (world, id, _) = cluster();
    let kube = world.root().join("local/plays").join(&id).join("shell-01/home/.kube/config");
    let config = world.home().join(".kube/config");
    fs::create_dir(config.parent().unwrap()).unwrap();
    fs::write(&config, "clusters: [{name: a}]\n").unwrap();
    let said = world.local(&["kube", &id, "--merge", "--", "true"]).failed(13);
    assert!(said.contains("cannot be edited") && said.contains("--merge"), "{said}");
    assert_eq!(fs::read_to_string(&config).unwrap(), "clusters: [{name: a}]\n");
    fs::write(&config, "").unwrap();
    fs::write(config.with_extension("lock"), "").unwrap();
    let said = world.local(&["kube", &id, "--merge", "--", "true"]).failed(13);
    assert!(said.contains("is in use"), "{said}");
    fs::write(&kube, "clusters: []\n").unwrap();
    assert!(world.local(&["kube", &id, "--", "true"]).failed(11).contains("no clusters"));
    fs::remove_file(&kube).unwrap();
    let said = world.local(&["kube", &id, "--", "true"]).failed(4);
    assert!(said.contains("no ~/.kube/config"), "{said}");
    eventually("nothing is left of ours", || {
        fs::read_dir(world.root().join("kube"))
            .unwrap()
            .flatten()
            .all(|entry| entry.path().extension().is_some_and(|e| e == "lock"))
    });
}

/// The root of a playground is a stranger, and programs here obey its kubeconfig.
#[test]
fn a_playgrounds_kubeconfig_runs_and_reads_nothing_here() {
    let (world, id, kubeconfig) = cluster();
    let kube = world.root().join("local/plays").join(&id).join("shell-01/home/.kube/config");
    let kubectl = needs("kubectl");
    let trace = world.home().join("PWNED");
    let exec = format!(
        "{{apiVersion: client.authentication.k8s.io/v1, interactiveMode: Never, command: /bin/sh, args: [-c, 'touch {}']}}",
        trace.display()
    );
    let secret = world.home().join("secret");
    fs::write(&secret, TOKEN).unwrap();
    for (part, what) in [
        (format!("exec: {exec}"), "runs a program on this computer (`exec` of user admin)"),
        (format!("tokenFile: {}", secret.display()), "reads a file of this computer (`tokenFile` of user admin)"),
    ] {
        fs::write(&kube, kubeconfig.replace(&format!("token: {TOKEN}"), &part)).unwrap();
        for args in [&["kube", &id, "--", kubectl.to_str().unwrap(), "get", "pods"][..], &["kube", &id, "--merge"]] {
            let said = world.local(args).failed(6);
            assert!(said.contains(what) && said.contains("hint: look at ~/.kube/config"), "{said}");
        }
    }
    assert!(!trace.exists());
    assert!(copies(&world).is_empty() && !world.home().join(".kube").exists(), "nothing was written");
}

fn kill(child: &Child, signal: &str) {
    assert!(Command::new("kill").args(["-s", signal, &child.id().to_string()]).status().unwrap().success());
}

/// Returns our copies of kubeconfigs.
fn copies(world: &World) -> Vec<PathBuf> {
    let paths = fs::read_dir(world.root().join("kube")).unwrap().map(|entry| entry.unwrap().path());
    paths.filter(|path| path.extension().is_some_and(|extension| extension == "yaml")).collect()
}

#[test]
fn a_lock_of_ours_whose_maker_was_killed_is_taken_over_and_no_other() {
    let (world, id, _) = cluster();
    let config = world.home().join(".kube/config");
    let lock = config.with_extension("lock");
    fs::create_dir(config.parent().unwrap()).unwrap();
    // A run that has added its context and is killed before it releases the lock.
    let mut traced = world.program(needs("strace"));
    traced.args(["-f", "-qq", "-o", "/dev/null", "-P", lock.to_str().unwrap(), "-e", "trace=unlink,unlinkat"]);
    traced.args(["-e", "inject=unlink,unlinkat:signal=KILL:when=1", "--", PROGRAM]);
    traced.args(["--local", "kube", &id, "--merge", "--", "true"]);
    let said = world.output(&mut traced);
    assert!(!said.status.success() && lock.exists(), "{said:?}");
    assert!(fs::read_to_string(&lock).unwrap().starts_with("labctl-ssh-proxy "));
    world.local(&["kube", &id, "--merge", "--", "true"]).ok();
    assert!(!lock.exists() && !config.exists());
    // It waits for kubectl's lock, and reacts to Ctrl-C meanwhile.
    fs::write(&lock, "").unwrap();
    for args in [&["kube", &id, "--merge", "--", "true"][..], &["kube", &id, "--merge"]] {
        let mut child = world.command(&["--local"]).args(args).spawn().unwrap();
        eventually("it waits for the lock", || !copies(&world).is_empty());
        kill(&child, "INT");
        assert_eq!(child.wait().unwrap().code(), Some(130));
        assert!(copies(&world).is_empty() && lock.exists());
    }
}

#[test]
fn a_context_belongs_to_one_run() {
    let (world, id, _) = cluster();
    let context = format!("playground-{id}");
    let running = Running::start(&world, &[&id, "--merge"]);
    let said = world.local(&["kube", &id, "--merge", "--", "true"]).failed(13);
    assert!(said.contains("another `kube` is using the context") && said.contains("leave out --merge"), "{said}");
    let pods = world.output(&mut kubectl(&world, &["--context", &context, "get", "pods", "-o", "name"]));
    assert_eq!(pods.ok(), "pod/web-0\n");
    assert_eq!(running.end("INT"), Some(130));
    assert!(!world.home().join(".kube/config").exists());
}

#[test]
fn a_context_is_taken_away_without_login_and_playground() {
    let (world, id, _) = cluster();
    let config = world.home().join(".kube/config");
    for named in [id.clone(), format!("playground-{id}"), format!("playground-{id}.shell-01")] {
        assert_eq!(Running::start(&world, &[&id, "--merge"]).end("KILL"), None);
        assert!(fs::read_to_string(&config).unwrap().contains(&id));
        let mut command = world.command(&["kube", &named, "--remove"]);
        let said = world.output(command.env_remove("IXIMIUZ_SESSION_ID"));
        assert!(said.ok().contains("no longer"));
        assert!(!config.exists());
    }
}

#[test]
fn what_killed_runs_left_goes_with_the_next_and_with_the_playground() {
    let (world, id, _) = cluster();
    let runs: Vec<_> = (0..3).map(|_| Running::start(&world, &[&id])).collect();
    assert_eq!(copies(&world).len(), 3);
    let mut paths = Vec::new();
    for (run, signal) in runs.into_iter().zip(["KILL", "KILL", "INT"]) {
        paths.push(run.path());
        run.stop(signal);
    }
    let living = Running::start(&world, &[&id]);
    assert_eq!(copies(&world), [living.path()], "those of the killed are gone: {paths:?}");
    assert_eq!(Running::start(&world, &[&id]).stop("INT").0, Some(130));
    assert_eq!(copies(&world), [living.path()]);
    assert_eq!(living.end("KILL"), None);
    assert_eq!(Running::start(&world, &[&id, "--merge"]).end("KILL"), None);
    world.local(&["destroy", &id, "--yes"]).ok();
    let left: Vec<_> = fs::read_dir(world.root().join("kube")).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(!left.iter().any(|path| path.to_string_lossy().contains(&id)), "{left:?}");
    assert!(!world.home().join(".kube/config").exists(), "its context is still there");
}

#[test]
fn the_end_of_a_forward_is_said_while_the_command_runs() {
    let (world, id, _) = cluster();
    let script = format!(
        "{} --local destroy {id} --yes >/dev/null 2>&1; {} get pods --request-timeout=5s >/dev/null 2>&1; sleep 5; exit 3",
        PROGRAM,
        needs("kubectl").display()
    );
    let said = world.local(&["kube", &id, "--", "sh", "-c", &script]);
    assert_eq!(said.code(), 3, "{said:?}");
    assert!(said.err.contains(&format!("playground shell-{}", &id[..4])) && !said.err.contains("broke"), "{said:?}");
}
