//! etcd and kube-apiserver, with certificates of their own.

use std::{
    fs::{self, File},
    io::Write,
    path::PathBuf,
    process::{Command, Stdio},
    sync::Mutex,
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{Ending, Said, eventually, free_port, needs};

/// Makes what kubeadm and k3s make: an authority, the API's certificate, and users with keys in the three forms that are
/// met. `admin` may do all, `eve` nothing.
const CERTIFICATES: &str = r#"
set -e
openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=kubernetes -days 9 -keyout ca.key -out ca.crt
leaf() {
  openssl req -new -key $1.key -subj "$2" -out $1.csr
  openssl x509 -req -in $1.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 9 -extfile <(echo "$3") -out $1.crt
}
openssl genrsa -out sa.key 2048
openssl genrsa -out api.key 2048
leaf api /CN=kube-apiserver 'subjectAltName=IP:127.0.0.1'
openssl genrsa -traditional -out admin.key 2048
leaf admin /O=system:masters/CN=admin extendedKeyUsage=clientAuth
openssl ecparam -name prime256v1 -genkey -noout -out eve.key
leaf eve /CN=eve extendedKeyUsage=clientAuth
"#;

/// Says what a test has found, which the test harness shows.
pub fn say(words: &str) {
    let _ = writeln!(std::io::stderr(), "{words}");
}

/// A real API, as long as this lives.
pub struct Api {
    server: Mutex<Option<Ending>>,
    etcd: Mutex<Option<Ending>>,
    folder: TempDir,
    /// etcd's for clients and for peers, and the API's.
    ports: [u16; 3],
    options: Vec<&'static str>,
}

impl Api {
    /// Starts one, with more options of kube-apiserver's.
    pub fn start(options: &[&'static str]) -> Api {
        let folder = tempfile::Builder::new().prefix("lsp").tempdir_in("/tmp").unwrap();
        let mut bash = Command::new("bash");
        let made = bash.args(["-c", CERTIFICATES]).current_dir(folder.path()).output().unwrap();
        assert!(made.status.success(), "{made:?}");
        let ports = [free_port(), free_port(), free_port()];
        let api = Api { folder, etcd: Mutex::default(), server: Mutex::default(), ports, options: options.to_vec() };
        fs::write(api.path("admin"), api.kubeconfig(&api.certificate("admin"))).unwrap();
        api.start_etcd();
        api.start_server();
        api
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn spawn(&self, name: &str, args: &[String]) -> Ending {
        let log = File::options().create(true).append(true).open(self.path(name).with_extension("log")).unwrap();
        let mut command = Command::new(needs(name));
        command.args(args).current_dir(self.folder.path()).stdin(Stdio::null());
        Ending(command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap())
    }

    pub fn start_etcd(&self) {
        let [clients, peers, _] = self.ports.map(|port| format!("http://127.0.0.1:{port}"));
        let args = [
            "--data-dir=data".to_owned(),
            "--unsafe-no-fsync".to_owned(),
            format!("--listen-client-urls={clients}"),
            format!("--advertise-client-urls={clients}"),
            format!("--listen-peer-urls={peers}"),
            format!("--initial-advertise-peer-urls={peers}"),
            format!("--initial-cluster=default={peers}"),
        ];
        *self.etcd.lock().unwrap() = Some(self.spawn("etcd", &args));
        eventually("etcd listens", || std::net::TcpStream::connect(("127.0.0.1", self.ports[0])).is_ok());
    }

    /// Kills etcd. Its data stay.
    pub fn kill_etcd(&self) {
        drop(self.etcd.lock().unwrap().take());
    }

    /// Forgets all history: what is known after it is what there is.
    pub fn forget(&self) {
        let url = format!("http://127.0.0.1:{}/v3/kv", self.ports[0]);
        let ask = |path: &str, body: Value| -> Value {
            let mut curl = Command::new(needs("curl"));
            let said = curl.args(["-sf", &format!("{url}/{path}"), "-d", &body.to_string()]).output().unwrap();
            serde_json::from_slice(&said.stdout).unwrap_or_else(|_| panic!("{said:?}"))
        };
        // A key that the API does not know, in base64. What comes next is still known at the last version.
        let put = || ask("put", json!({"key": "YQ==", "value": "YQ=="}))["header"]["revision"].clone();
        put();
        ask("compaction", json!({"revision": put(), "physical": true}));
    }

    pub fn start_server(&self) {
        let [store, _, port] = self.ports;
        let mut args = vec![format!("--etcd-servers=http://127.0.0.1:{store}"), format!("--secure-port={port}")];
        args.extend(
            [
                "--bind-address=127.0.0.1",
                "--advertise-address=127.0.0.1",
                "--endpoint-reconciler-type=none",
                "--tls-cert-file=api.crt",
                "--tls-private-key-file=api.key",
                "--client-ca-file=ca.crt",
                "--service-account-key-file=sa.key",
                "--service-account-signing-key-file=sa.key",
                "--service-account-issuer=https://cluster.test",
                "--service-cluster-ip-range=10.0.0.0/24",
                "--authorization-mode=RBAC",
                // As kubeadm and k3s have it.
                "--allow-privileged=true",
                // It waits for an account in each namespace, which a controller makes.
                "--disable-admission-plugins=ServiceAccount",
            ]
            .into_iter()
            .chain(self.options.iter().copied())
            .map(str::to_owned),
        );
        *self.server.lock().unwrap() = Some(self.spawn("kube-apiserver", &args));
        eventually("the API is ready", || self.ask(&["get", "--raw", "/readyz"], None).status.success());
    }

    /// Ends the API as an update of a cluster ends it.
    pub fn stop_server(&self) {
        self.signal(Signal::TERM);
        if let Some(mut server) = self.server.lock().unwrap().take() {
            server.0.wait().unwrap();
        }
    }

    /// Sends the API's process a signal.
    pub fn signal(&self, signal: Signal) {
        let server = self.server.lock().unwrap();
        kill_process(Pid::from_child(&server.as_ref().unwrap().0), signal).unwrap();
    }

    /// The controllers that make pods, as long as what it returns lives.
    pub fn controllers(&self) -> Ending {
        let controllers = "deployment-controller,replicaset-controller,statefulset-controller,daemonset-controller";
        let args = ["--kubeconfig=admin", "--leader-elect=false", "--secure-port=0"].map(str::to_owned);
        self.spawn("kube-controller-manager", &[&args[..], &[format!("--controllers={controllers}")]].concat())
    }

    fn ask(&self, args: &[&str], input: Option<&Value>) -> Said {
        let mut command = Command::new(needs("kubectl"));
        command.env("KUBECONFIG", self.path("admin")).env("HOME", self.folder.path()).args(args);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let text = input.map(ToString::to_string).unwrap_or_default();
        std::thread::scope(|scope| {
            scope.spawn(move || stdin.write_all(text.as_bytes()));
            Said::of(child.wait_with_output().unwrap())
        })
    }

    /// kubectl's words, as the administrator.
    #[track_caller]
    pub fn kubectl(&self, args: &[&str]) -> String {
        self.ask(args, None).ok()
    }

    /// The error of kubectl with another kubeconfig.
    pub fn complaint(&self, kubeconfig: &str, args: &[&str]) -> String {
        fs::write(self.path("other"), kubeconfig).unwrap();
        self.ask(&[&["--kubeconfig", self.path("other").to_str().unwrap()], args].concat(), None).failed(1)
    }

    /// The same, if it fails, too.
    pub fn says(&self, args: &[&str]) -> String {
        self.ask(args, None).out
    }

    #[track_caller]
    pub fn json(&self, args: &[&str]) -> Value {
        serde_json::from_str(&self.kubectl(&[args, &["-o", "json"]].concat())).unwrap()
    }

    /// Creates objects, with their statuses where they have them, as their controllers and nodes do.
    #[track_caller]
    pub fn create(&self, objects: &[Value]) {
        let list = |objects: &[Value]| json!({"apiVersion": "v1", "kind": "List", "items": objects});
        let _ = self.ask(&["create", "-f", "-"], Some(&list(objects))).ok();
        let seen: Vec<Value> = objects.iter().filter(|one| one["status"].is_object()).cloned().collect();
        if !seen.is_empty() {
            self.see(&seen);
        }
    }

    /// Writes the statuses of objects.
    #[track_caller]
    pub fn see(&self, objects: &[Value]) {
        let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
        let _ = self.ask(&["replace", "--subresource=status", "-f", "-"], Some(&list)).ok();
    }

    /// Puts a pod onto a node, as a scheduler does.
    pub fn bind(&self, namespace: &str, pod: &str, node: &str) {
        let binding = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": pod}, "target": {"kind": "Node", "name": node}});
        let path = format!("/api/v1/namespaces/{namespace}/pods/{pod}/binding");
        let _ = self.ask(&["create", "--raw", &path, "-f", "-"], Some(&binding)).ok();
    }

    /// Prepares curl to get a path as the administrator.
    pub fn curl(&self, path: &str) -> Command {
        let mut curl = Command::new(needs("curl"));
        curl.current_dir(self.folder.path()).args([
            "-sfS",
            "--cacert",
            "ca.crt",
            "--cert",
            "admin.crt",
            "--key",
            "admin.key",
        ]);
        curl.arg(format!("https://127.0.0.1:{}{path}", self.ports[2]));
        curl
    }

    /// A user with a certificate.
    pub fn certificate(&self, name: &str) -> Value {
        json!({"client-certificate": self.path(&format!("{name}.crt")), "client-key": self.path(&format!("{name}.key"))})
    }

    /// The kubeconfig of a user, as kubectl writes one.
    pub fn kubeconfig(&self, user: &Value) -> String {
        let cluster = json!({"server": format!("https://127.0.0.1:{}", self.ports[2]), "certificate-authority": self.path("ca.crt")});
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "x",
            "clusters": [{"name": "c", "cluster": cluster}],
            "users": [{"name": "u", "user": user}],
            "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        });
        fs::write(self.path("config"), config.to_string()).unwrap();
        let config = self.path("config");
        self.kubectl(&["--kubeconfig", config.to_str().unwrap(), "config", "view", "--raw", "--flatten"])
    }
}

impl Drop for Api {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for name in ["kube-apiserver.log", "kube-controller-manager.log"] {
                let log = fs::read_to_string(self.path(name)).unwrap_or_default();
                let last: Vec<&str> = log.lines().rev().take(5).collect();
                say(&format!("the last words in {name}, backwards:\n{}", last.join("\n")));
            }
        }
    }
}
