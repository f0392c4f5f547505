//! The benchmark suite: measures this program and its peers in turn, in one run, on one machine. `bench/run` builds the
//! programs, runs the suite and reports where the results are.
//!
//! Every path carries the same conversation with the same target: a greeting, then a command line, then bytes that both
//! ends verify by a checksum. Paths use standard input and output if they can; the others listen on a port.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program for the terminal")]

use std::{
    collections::BTreeMap,
    fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, mpsc},
    thread,
    time::{Duration, Instant},
};

use labctl_ssh_proxy::{
    connect::client::Client,
    labs::{Labs, net::Dialer},
    pipe,
    settings::{Folders, Settings},
};

type Any<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

const GREETING: &[u8] = b"SSH-2.0-bench\r\n";
/// Length in bytes after which the data repeats. It is not a multiple of any buffer's size.
const NOISE: usize = 4_194_301;
const CHUNK: usize = 256 * 1024;
const ID: &str = "0123456789abcdef01234567";

fn main() -> Any<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let [mode, home, play, address] = &args[..]
        && mode == "pipe"
    {
        return pipe_to(Path::new(home), play, address);
    }
    Suite::new(&args)?.run()
}

// --- paths that carry bytes ------------------------------------------------------------------------------------------

/// Runs the library's client to any address that the embedded platform's machine can dial. This is what `connect` does
/// after the key exchange.
fn pipe_to(home: &Path, play: &str, address: &str) -> Any<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let folders = Folders { home: home.into(), root: home.into(), settings: home.join("settings.yaml") };
    let done = runtime.block_on(async {
        let dialer = match std::env::var_os("BENCH_TCP") {
            Some(_) => Dialer::network(&Settings::default()),
            None => Dialer::socket(folders.socket()),
        };
        let labs = Labs::embedded(Dialer::socket(folders.socket()));
        let found = labs.play(play).await?;
        let machine = &found.machines[0];
        let key = fs::read_to_string(home.join("key.pub"))?;
        let started = labs.start_tunnel(play, &machine.name, machine.default_user(), key.trim()).await?;
        let session = labs.log_into_tunnel(&started).await?;
        let tunnel = Labs::embedded(dialer).dial(&session, address).await?;
        let mut client = Client::on_stdio()?;
        let (input, output, gone) = client.streams();
        let (rx, tx) = tokio::io::split(tunnel);
        pipe::run(input, output, rx, tx, gone).await;
        Any::Ok(())
    });
    runtime.shutdown_background();
    done
}

/// One path to the target.
struct Way {
    name: String,
    reach: Reach,
    /// Processes on the far side. Their CPU time counts as the server's.
    servers: Vec<u32>,
}

enum Reach {
    /// A direct TCP connection to this port.
    Tcp(u16),
    /// A new program for each connection, on its standard input and output.
    Stdio(Box<dyn Fn() -> Command + Sync>),
    /// A program that listens: its port and process id.
    Port(u16, u32),
}

/// A connection over a [`Way`].
struct Link {
    input: Box<dyn Write + Send>,
    output: Box<dyn Read + Send>,
    client: Option<u32>,
    child: Option<Child>,
}

impl Way {
    fn open(&self) -> Any<Link> {
        let mut link = match &self.reach {
            Reach::Tcp(port) | Reach::Port(port, _) => {
                let tcp = TcpStream::connect(("127.0.0.1", *port))?;
                tcp.set_nodelay(true)?;
                let client = if let Reach::Port(_, pid) = &self.reach { Some(*pid) } else { None };
                Link { input: Box::new(tcp.try_clone()?), output: Box::new(tcp), client, child: None }
            }
            Reach::Stdio(command) => {
                let mut child = command().stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
                let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else { unreachable!() };
                let client = Some(child.id());
                Link { input: Box::new(input), output: Box::new(output), client, child: Some(child) }
            }
        };
        let mut greeting = [0; GREETING.len()];
        link.output.read_exact(&mut greeting)?;
        Ok(link)
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

// --- the conversation ------------------------------------------------------------------------------------------------

/// A checksum that depends on the order of the bytes and takes little time compared with moving them.
#[derive(Default)]
struct Sum {
    state: u64,
    held: Vec<u8>,
}

impl Sum {
    fn add(&mut self, mut bytes: &[u8]) {
        if !self.held.is_empty() {
            let n = bytes.len().min(8 - self.held.len());
            self.held.extend_from_slice(&bytes[..n]);
            bytes = &bytes[n..];
            if self.held.len() < 8 {
                return;
            }
            let held = std::mem::take(&mut self.held);
            self.words(&held);
        }
        let whole = bytes.len() / 8 * 8;
        self.words(&bytes[..whole]);
        self.held.extend_from_slice(&bytes[whole..]);
    }

    fn words(&mut self, bytes: &[u8]) {
        for word in bytes.chunks_exact(8) {
            let word = u64::from_le_bytes([word[0], word[1], word[2], word[3], word[4], word[5], word[6], word[7]]);
            self.state = (self.state.rotate_left(5) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        }
    }

    fn end(mut self) -> String {
        let mut held = std::mem::take(&mut self.held);
        held.resize(8, 0);
        self.words(&held);
        format!("{:016x}", self.state)
    }
}

fn noise() -> Arc<Vec<u8>> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(NOISE + 8);
    while bytes.len() < NOISE {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(NOISE);
    Arc::new(bytes)
}

/// Sends this many bytes of noise.
fn pour(to: &mut impl Write, noise: &[u8], bytes: usize) -> Any<()> {
    let (mut left, mut at) = (bytes, 0);
    while left > 0 {
        let n = left.min(CHUNK).min(noise.len() - at);
        to.write_all(&noise[at..at + n])?;
        at = (at + n) % noise.len();
        left -= n;
    }
    Ok(to.flush()?)
}

impl Write for Sum {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.add(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Returns the checksum of this many bytes of noise, which is computed once.
fn expected(noise: &[u8], bytes: usize) -> Any<String> {
    static MADE: Mutex<BTreeMap<usize, String>> = Mutex::new(BTreeMap::new());
    let mut made = MADE.lock().map_err(|_| "a thread failed")?;
    if let Some(sum) = made.get(&bytes) {
        return Ok(sum.clone());
    }
    let mut sum = Sum::default();
    pour(&mut sum, noise, bytes)?;
    Ok(made.entry(bytes).or_insert(sum.end()).clone())
}

/// Receives this many bytes and returns their checksum.
fn draw(from: &mut impl Read, bytes: usize) -> Any<String> {
    let (mut sum, mut left, mut buffer) = (Sum::default(), bytes, vec![0; CHUNK]);
    while left > 0 {
        let most = left.min(CHUNK);
        let n = from.read(&mut buffer[..most])?;
        if n == 0 {
            return Err(format!("the stream ended {left} bytes early").into());
        }
        sum.add(&buffer[..n]);
        left -= n;
    }
    Ok(sum.end())
}

/// Starts the target of all paths and returns its port. Port 0 means any free port.
fn target(noise: Arc<Vec<u8>>, port: u16) -> Any<u16> {
    let listener = TcpListener::bind(("127.0.0.1", port))?;
    let port = listener.local_addr()?.port();
    thread::spawn(move || {
        for tcp in listener.incoming().flatten() {
            let noise = Arc::clone(&noise);
            thread::spawn(move || drop(converse(tcp, &noise)));
        }
    });
    Ok(port)
}

fn converse(mut tcp: TcpStream, noise: &[u8]) -> Any<()> {
    tcp.set_nodelay(true)?;
    tcp.write_all(GREETING)?;
    loop {
        let line = line(&mut tcp)?;
        match line.split(' ').collect::<Vec<_>>()[..] {
            ["GET", "up", bytes] => {
                let sum = draw(&mut tcp, bytes.parse()?)?;
                tcp.write_all(sum.as_bytes())?;
            }
            ["GET", "down", bytes] => pour(&mut tcp, noise, bytes.parse()?)?,
            ["GET", "echo", times] => {
                let mut buffer = [0; 64];
                for _ in 0..times.parse::<usize>()? {
                    tcp.read_exact(&mut buffer)?;
                    tcp.write_all(&buffer)?;
                }
            }
            _ => return Ok(()),
        }
    }
}

fn line(from: &mut impl Read) -> Any<String> {
    let (mut line, mut byte) = (Vec::new(), [0]);
    loop {
        from.read_exact(&mut byte)?;
        if byte[0] == b'\n' {
            return Ok(String::from_utf8(line)?);
        }
        line.push(byte[0]);
    }
}

fn is_right(seen: &[u8], noise: &[u8], bytes: usize) -> Any<()> {
    if seen == expected(noise, bytes)?.as_bytes() {
        return Ok(());
    }
    Err("the bytes received differ from the bytes sent".into())
}

impl Link {
    fn up(&mut self, noise: &[u8], bytes: usize) -> Any<()> {
        self.input.write_all(format!("GET up {bytes}\n").as_bytes())?;
        pour(&mut self.input, noise, bytes)?;
        let mut seen = [0; 16];
        self.output.read_exact(&mut seen)?;
        is_right(&seen, noise, bytes)
    }

    fn down(&mut self, noise: &[u8], bytes: usize) -> Any<()> {
        self.input.write_all(format!("GET down {bytes}\n").as_bytes())?;
        self.input.flush()?;
        let seen = draw(&mut self.output, bytes)?;
        is_right(seen.as_bytes(), noise, bytes)
    }

    /// Returns the round-trip times of 64 bytes, in us, sorted.
    fn echo(&mut self, times: usize, pause: Duration) -> Any<Vec<f64>> {
        self.input.write_all(format!("GET echo {times}\n").as_bytes())?;
        let mut buffer = [7; 64];
        let mut all = Vec::new();
        for _ in 0..times {
            let start = Instant::now();
            self.input.write_all(&buffer)?;
            self.input.flush()?;
            self.output.read_exact(&mut buffer)?;
            all.push(start.elapsed().as_secs_f64() * 1e6);
            thread::sleep(pause);
        }
        all.sort_by(f64::total_cmp);
        Ok(all)
    }
}

// --- CPU and memory --------------------------------------------------------------------------------------------------

/// Returns the CPU seconds of processes and their descendants, from the kernel's nanosecond accounting.
fn cpu(pids: &[u32]) -> f64 {
    tree(pids)
        .iter()
        .flat_map(|pid| fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten())
        .filter_map(|task| fs::read_to_string(task.path().join("schedstat")).ok()?.split(' ').next()?.parse().ok())
        .map(|ns: f64| ns / 1e9)
        .sum()
}

fn tree(pids: &[u32]) -> Vec<u32> {
    let mut all = pids.to_vec();
    let mut i = 0;
    while i < all.len() {
        for task in fs::read_dir(format!("/proc/{}/task", all[i])).into_iter().flatten().flatten() {
            let children = fs::read_to_string(task.path().join("children")).unwrap_or_default();
            all.extend(children.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
        }
        i += 1;
    }
    all
}

/// Returns a field of /proc/PID/status, in MiB.
fn memory(pid: u32, field: &str) -> f64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let kib = status.lines().find_map(|line| line.strip_prefix(field)?.split_whitespace().next()?.parse::<f64>().ok());
    kib.unwrap_or_default() / 1024.0
}

fn median(mut all: Vec<f64>) -> f64 {
    all.sort_by(f64::total_cmp);
    percentile(&all, 50)
}

fn percentile(sorted: &[f64], p: usize) -> f64 {
    sorted.get((sorted.len() * p / 100).min(sorted.len().saturating_sub(1))).copied().unwrap_or(f64::NAN)
}

// --- the suite -------------------------------------------------------------------------------------------------------

/// The measurements of one path.
#[derive(Default)]
struct Row {
    name: String,
    up: f64,
    down: f64,
    client_cpu: [f64; 2],
    server_cpu: [f64; 2],
    rtt: [f64; 2],
    first: [f64; 2],
    idle: f64,
    peak: f64,
}

struct Suite {
    program: PathBuf,
    standin: Option<PathBuf>,
    wsmux: Option<PathBuf>,
    websocat: Option<PathBuf>,
    labctl: Option<PathBuf>,
    folder: PathBuf,
    noise: Arc<Vec<u8>>,
    mib: usize,
    rounds: usize,
    only: Option<String>,
    processes: Vec<Child>,
    text: String,
}

impl Drop for Suite {
    fn drop(&mut self) {
        for process in &mut self.processes {
            let _ = process.kill();
            let _ = process.wait();
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}

impl Suite {
    fn new(args: &[String]) -> Any<Suite> {
        let value = |name: &str| args.iter().position(|arg| arg == name).and_then(|i| args.get(i + 1)).cloned();
        let folder = std::env::temp_dir().join(format!("lsp-bench-{}", std::process::id()));
        fs::create_dir_all(&folder)?;
        let found = |path: Option<String>| path.map(PathBuf::from).filter(|path| path.exists());
        Ok(Suite {
            program: found(value("--program")).ok_or("--program PATH of the program to measure")?,
            standin: found(value("--standin")),
            wsmux: found(value("--wsmux")),
            websocat: found(value("--websocat")),
            labctl: found(value("--labctl")),
            folder,
            noise: noise(),
            mib: value("--mib").map_or(Ok(512), |mib| mib.parse())?,
            rounds: value("--rounds").map_or(Ok(3), |rounds| rounds.parse())?,
            only: value("--only"),
            processes: Vec::new(),
            text: String::new(),
        })
    }

    fn say(&mut self, line: &str) {
        println!("{line}");
        self.text.push_str(line);
        self.text.push('\n');
    }

    fn wants(&self, part: &str) -> bool {
        self.only.as_deref().is_none_or(|only| only.split(',').any(|wanted| part.contains(wanted)))
    }

    /// Starts a server that prints its address on its first line. Returns its port and process id.
    fn start(&mut self, command: &mut Command) -> Any<(u16, u32)> {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        let address = line(child.stdout.as_mut().ok_or("no output")?)?;
        let port = address.rsplit(':').next().unwrap_or_default().parse()?;
        let pid = child.id();
        self.processes.push(child);
        Ok((port, pid))
    }

    /// Starts a server on a free port that is passed to it. Returns the port and the process id.
    fn listens(&mut self, command: &mut Command, port: impl Fn(u16) -> Vec<String>) -> Any<(u16, u32)> {
        let free = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let child = command.args(port(free)).stdin(Stdio::null()).stdout(Stdio::null()).spawn()?;
        let pid = child.id();
        self.processes.push(child);
        wait_for(free)?;
        Ok((free, pid))
    }

    fn socat(&mut self, block: usize, port: u16) -> Any<(u16, u32)> {
        self.listens(Command::new("socat").arg(format!("-b{block}")), |free| {
            vec![
                format!("TCP-LISTEN:{free},bind=127.0.0.1,reuseaddr,fork,nodelay,backlog=300"),
                format!("TCP:127.0.0.1:{port},nodelay"),
            ]
        })
    }

    /// Creates a home folder in which the program has an account on the platform at `base`.
    fn home(&self, name: &str, base: &str) -> Any<PathBuf> {
        let home = self.folder.join(name);
        fs::create_dir_all(home.join(".iximiuz/labctl"))?;
        fs::write(
            home.join(".iximiuz/labctl/config.yaml"),
            format!("base_url: {base}\nsession_id: bench\naccess_token: bench\n"),
        )?;
        Ok(home)
    }

    fn run(mut self) -> Any<()> {
        let target = target(Arc::clone(&self.noise), 0)?;
        self.say(&machine());
        let mut ways = vec![Way { name: "direct TCP".into(), reach: Reach::Tcp(target), servers: vec![] }];
        for block in [65536, 1024] {
            let (port, pid) = self.socat(block, target)?;
            if block == 65536 {
                ways.push(Way {
                    name: "socat, 1 hop, 64 KiB".into(),
                    reach: stdio("socat", &["-b65536", "-", &format!("TCP:127.0.0.1:{target},nodelay")]),
                    servers: vec![],
                });
            }
            ways.push(Way {
                name: format!("socat, 2 hops, {} KiB", block / 1024),
                reach: stdio("socat", &[&format!("-b{block}"), "-", &format!("TCP:127.0.0.1:{port},nodelay")]),
                servers: vec![pid],
            });
        }
        if let Some(standin) = self.standin.clone() {
            let target = format!("127.0.0.1:{target}");
            let (port, pid) = self.start(Command::new(&standin).args(["server", "--target", &target]))?;
            let base = format!("http://127.0.0.1:{port}");
            let url = format!("ws://127.0.0.1:{port}");
            let client = self.start(Command::new(&standin).args(["client", "--url", &url]))?;
            self.against(&mut ways, "stand-in", &base, pid, None)?;
            self.peers(&mut ways, "stand-in", &url, pid, client);
            let (cert, key) = self.certificate()?;
            let mut tls = Command::new(&standin);
            tls.args(["server", "--target", &target, "--cert"]).arg(&cert).arg("--key").arg(&key);
            let (port, pid) = self.start(&mut tls)?;
            let base = format!("https://localhost:{port}");
            self.against(&mut ways, "stand-in, TLS", &base, pid, Some(cert.clone()))?;
            if let Some(labctl) = self.labctl.clone() {
                let client = self.labctl(&labctl, &base, &cert)?;
                let reach = Reach::Port(client.0, client.1);
                ways.push(Way { name: "labctl, stand-in, TLS".into(), reach, servers: vec![pid] });
            }
            if let Some(wsmux) = self.wsmux.clone() {
                self.wsmux(&mut ways, &standin, &wsmux)?;
            }
        } else {
            eprintln!("*** no stand-in for wsmux: its rows are omitted (go is needed to build it)");
        }
        self.embedded(&mut ways, target)?;

        let mut rows = Vec::new();
        for way in &ways {
            if self.wants(&way.name) {
                eprintln!("... {}", way.name);
                rows.push(self.measure(way)?);
            }
        }
        self.table(&rows);
        fs::write("target/bench.svg", Self::plot(&rows))?;
        if self.wants("start-up") {
            self.start_up(target)?;
        }
        if self.wants("interactive") {
            for way in ways.iter().filter(|way| way.name.starts_with("ours")) {
                self.interactive(way)?;
            }
        }
        if self.wants("scale") {
            for way in ways.iter().filter(|way| way.name.starts_with("ours, embedded")) {
                self.scale(way)?;
            }
        }
        fs::write("target/bench.md", &self.text)?;
        println!("\nwritten to target/bench.md");
        Ok(())
    }

    /// Adds the real wsmux, server and client. Tunnels to a machine's SSH lead to port 22, so the target listens there.
    fn wsmux(&mut self, ways: &mut Vec<Way>, standin: &Path, wsmux: &Path) -> Any<()> {
        if let Err(e) = target(Arc::clone(&self.noise), 22) {
            eprintln!("*** no rows for wsmux: the target cannot listen on port 22 of this machine: {e}");
            return Ok(());
        }
        let server = self.listens(Command::new(wsmux).arg("serve"), |port| vec![format!("-addr=127.0.0.1:{port}")])?;
        let tunnels = format!("http://127.0.0.1:{}", server.0);
        let (port, _) = self.start(Command::new(standin).args(["server", "--tunnels", &tunnels]))?;
        self.against(ways, "wsmux", &format!("http://127.0.0.1:{port}"), server.1, None)?;
        let url = format!("ws://127.0.0.1:{}", server.0);
        let client = self.listens(Command::new(wsmux).args(["proxy", "-server", &url, "-remote-port=22"]), |port| {
            vec!["-local-host=127.0.0.1".to_owned(), format!("-local-port={port}")]
        })?;
        self.peers(ways, "wsmux", &url, server.1, client);
        Ok(())
    }

    /// Starts the platform's own client, which listens for one playground's SSH. Returns its port and process id.
    fn labctl(&mut self, labctl: &Path, base: &str, ca: &Path) -> Any<(u16, u32)> {
        let home = self.home("labctl", base)?;
        let key = home.join(".ssh/iximiuz_labs_user");
        fs::create_dir_all(home.join(".ssh"))?;
        if !Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&key).status()?.success() {
            return Err("ssh-keygen cannot create a key".into());
        }
        let mut command = Command::new(labctl);
        command.env("HOME", &home).env("SSL_CERT_FILE", ca).args(["--endpoint", base, "ssh-proxy", "--quiet", ID]);
        self.listens(&mut command, |port| vec![format!("--address=127.0.0.1:{port}")])
    }

    /// Adds this program, against a platform at `base` whose tunnels the process `server` carries.
    fn against(&mut self, ways: &mut Vec<Way>, what: &str, base: &str, server: u32, ca: Option<PathBuf>) -> Any<()> {
        let (program, home) = (self.program.clone(), self.home(what, base)?);
        let reach = Reach::Stdio(Box::new(move || {
            let mut command = Command::new(&program);
            command.env_clear().env("HOME", &home).args(["connect", &format!("playground-{ID}")]).stderr(Stdio::null());
            if let Some(ca) = &ca {
                command.env("SSL_CERT_FILE", ca);
            }
            command
        }));
        ways.push(Way { name: format!("ours, {what}"), reach, servers: vec![server] });
        Ok(())
    }

    /// Adds the other clients of a tunnel server: its own, which listens on `port`, and websocat.
    fn peers(&mut self, ways: &mut Vec<Way>, what: &str, url: &str, server: u32, (port, client): (u16, u32)) {
        let name = format!("{what} client, {what}");
        ways.push(Way { name, reach: Reach::Port(port, client), servers: vec![server] });
        if let Some(websocat) = &self.websocat {
            let target = format!("{url}/tunnels/OjIy");
            let args = ["-b", "-B65536", "-H=Cookie: .ixcondsess=standin", "--no-close", "-", &target];
            let reach = stdio(&websocat.display().to_string(), &args);
            ways.push(Way { name: format!("websocat, {what}"), reach, servers: vec![server] });
        }
    }

    /// Adds the embedded platform: this program's client over its socket and over TCP.
    fn embedded(&mut self, ways: &mut Vec<Way>, target: u16) -> Any<()> {
        let home = self.folder.join("embedded");
        fs::create_dir_all(&home)?;
        let program = self.program.clone();
        let world = home.clone();
        let command = move |args: &[&str]| {
            let mut command = Command::new(&program);
            command
                .env_clear()
                .env("PATH", "/usr/bin:/bin")
                .env("HOME", &world)
                .env("LABCTL_SSH_PROXY_HOME", &world)
                .args(args);
            command
        };
        let serve = command(&["local", "serve", "--listen", "127.0.0.1:0"]).stderr(Stdio::null()).spawn()?;
        let pid = serve.id();
        self.processes.push(serve);
        let deadline = Instant::now() + Duration::from_secs(10);
        while std::os::unix::net::UnixStream::connect(home.join("local/socket")).is_err() {
            if Instant::now() > deadline {
                return Err("the embedded platform does not start".into());
            }
            thread::sleep(Duration::from_millis(10));
        }
        let said = command(&["--local", "start", "shell", "--json"]).stderr(Stdio::null()).output()?;
        let play: serde_json::Value = serde_json::from_slice(&said.stdout)?;
        let play = play["id"].as_str().ok_or("no playground")?.to_owned();
        fs::copy(home.join(".ssh/iximiuz_labs_user.pub"), home.join("key.pub"))?;
        let this = std::env::current_exe()?;
        for (name, tcp) in [("ours, embedded, socket", false), ("ours, embedded, TCP", true)] {
            let (this, home, play) = (this.clone(), home.clone(), play.clone());
            let reach = Reach::Stdio(Box::new(move || {
                let mut command = Command::new(&this);
                command.arg("pipe").arg(&home).args([&play, &format!("127.0.0.1:{target}")]);
                if tcp {
                    command.env("BENCH_TCP", "1");
                }
                command
            }));
            ways.push(Way { name: name.into(), reach, servers: vec![pid] });
        }
        Ok(())
    }

    fn certificate(&self) -> Any<(PathBuf, PathBuf)> {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
        let (cert, key) = (self.folder.join("cert.pem"), self.folder.join("key.pem"));
        fs::write(&cert, made.cert.pem())?;
        fs::write(&key, made.signing_key.serialize_pem())?;
        Ok((cert, key))
    }

    fn measure(&self, way: &Way) -> Any<Row> {
        let bytes = self.mib << 20;
        let gib = bytes as f64 / f64::from(1 << 30);
        expected(&self.noise, bytes)?;
        let (mut up, mut down) = (Vec::new(), Vec::new());
        let mut cpus: [Vec<f64>; 4] = Default::default();
        let (mut rtts, mut peak) = ([Vec::new(), Vec::new()], 0.0f64);
        for _ in 0..self.rounds {
            for direction in 0..2 {
                let mut link = way.open()?;
                let client: Vec<u32> = link.client.into_iter().collect();
                let before = (cpu(&client), cpu(&way.servers));
                let start = Instant::now();
                if direction == 0 {
                    link.up(&self.noise, bytes)?
                } else {
                    link.down(&self.noise, bytes)?
                }
                let time = start.elapsed();
                cpus[direction].push((cpu(&client) - before.0) / gib);
                cpus[2 + direction].push((cpu(&way.servers) - before.1) / gib);
                if direction == 0 { &mut up } else { &mut down }.push(self.mib as f64 / time.as_secs_f64());
                peak = peak.max(client.first().map_or(0.0, |pid| memory(*pid, "VmHWM:")));
            }
            let rtt = way.open()?.echo(5000, Duration::ZERO)?;
            rtts[0].push(percentile(&rtt, 50));
            rtts[1].push(percentile(&rtt, 99));
        }
        let mut first = Vec::new();
        for _ in 0..40 {
            let start = Instant::now();
            drop(way.open()?);
            first.push(start.elapsed().as_secs_f64() * 1e3);
        }
        first.sort_by(f64::total_cmp);
        let idle = {
            let link = way.open()?;
            // `connect` releases the memory that its start needed one second after the connection has settled.
            thread::sleep(Duration::from_secs(2));
            link.client.map_or(0.0, |pid| memory(pid, "VmRSS:"))
        };
        let [cu, cd, su, sd] = cpus.map(median);
        Ok(Row {
            name: way.name.clone(),
            up: median(up),
            down: median(down),
            client_cpu: [cu, cd],
            server_cpu: [su, sd],
            rtt: rtts.map(median),
            first: [percentile(&first, 50), percentile(&first, 99)],
            idle,
            peak,
        })
    }

    fn table(&mut self, rows: &[Row]) {
        self.say("\n| path | MiB/s up / down | client CPU s/GiB up / down | server CPU s/GiB up / down | 64-byte round trip p50 / p99, us | to the first byte p50 / p99, ms | client memory idle / peak, MiB |");
        self.say("| --- | --- | --- | --- | --- | --- | --- |");
        for row in rows {
            let pair = |[a, b]: [f64; 2], digits: usize| format!("{a:.digits$} / {b:.digits$}");
            self.say(&format!(
                "| {} | {} | {} | {} | {} | {} | {} |",
                row.name,
                pair([row.up, row.down], 0),
                pair(row.client_cpu, 2),
                pair(row.server_cpu, 2),
                pair(row.rtt, 0),
                pair(row.first, 1),
                pair([row.idle, row.peak], 1),
            ));
        }
        let find = |name: &str| rows.iter().find(|row| row.name == name);
        let mut ratios = Vec::new();
        for (client, server) in
            [("wsmux client", "wsmux"), ("stand-in client", "stand-in"), ("labctl", "stand-in, TLS")]
        {
            let peer = format!("{client}, {server}");
            let (Some(ours), Some(client)) = (find(&format!("ours, {server}")), find(&peer)) else { continue };
            ratios.push(format!(
                "ours : {peer} = {:.2} up (goal 4), {:.2} down (goal 1.6); client CPU {:.2} up (goal 1.2), {:.2} down (goal \
                 3) s/GiB",
                ours.up / client.up,
                ours.down / client.down,
                ours.client_cpu[0],
                ours.client_cpu[1],
            ));
        }
        if let Some(peer) = find("socat, 2 hops, 64 KiB") {
            for ours in rows.iter().filter(|row| row.name.starts_with("ours")) {
                // These goals apply to servers that send large messages.
                let goal =
                    |goal: &str| if ours.name.contains("embedded") { format!(" (goal {goal})") } else { String::new() };
                ratios.push(format!(
                    "{} : socat with 2 hops and 64 KiB = {:.2} up, {:.2} down{}, round trip {:.2} p50{}, {:.2} p99{}",
                    ours.name,
                    ours.up / peer.up,
                    ours.down / peer.down,
                    goal("0.5"),
                    ours.rtt[0] / peer.rtt[0],
                    goal("1.3"),
                    ours.rtt[1] / peer.rtt[1],
                    goal("1.5"),
                ));
            }
            if let (Some(ours), Some(one)) = (find("ours, stand-in"), find("socat, 1 hop, 64 KiB")) {
                ratios.push(format!(
                    "first byte with a kept session: {:.1} ms after socat's, which connects straight (goal 10)",
                    ours.first[0] - one.first[0]
                ));
            }
        }
        self.say("");
        for ratio in ratios {
            self.say(&format!("- {ratio}"));
        }
    }

    /// Draws the throughput of each path as bars, up above down.
    fn plot(rows: &[Row]) -> String {
        let most = rows.iter().map(|row| row.up.max(row.down)).fold(1.0, f64::max);
        let height = 60 + rows.len() * 44;
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"760\" height=\"{height}\" font-family=\"sans-serif\" font-size=\"13\">\n\
             <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
             <text x=\"10\" y=\"24\">MiB/s over each path: up (dark), down (light); ours in blue</text>\n"
        );
        for (n, row) in rows.iter().enumerate() {
            let y = 44 + n * 44;
            let colours = if row.name.starts_with("ours") { ["#1a5fb4", "#99c1f1"] } else { ["#77767b", "#c0bfbc"] };
            svg += &format!("<text x=\"200\" y=\"{}\" text-anchor=\"end\">{}</text>\n", y + 20, row.name);
            for (i, (rate, colour)) in [row.up, row.down].into_iter().zip(colours).enumerate() {
                let (width, y) = (rate / most * 460.0, y + i * 17);
                svg += &format!(
                    "<rect x=\"210\" y=\"{y}\" width=\"{width:.0}\" height=\"15\" fill=\"{colour}\"/>\
                     <text x=\"{:.0}\" y=\"{}\">{rate:.0}</text>\n",
                    width + 216.0,
                    y + 12,
                );
            }
        }
        svg + "</svg>\n"
    }

    fn start_up(&mut self, target: u16) -> Any<()> {
        let mut times = Vec::new();
        for _ in 0..100 {
            let start = Instant::now();
            Command::new(&self.program).arg("--version").stdout(Stdio::null()).status()?;
            times.push(start.elapsed().as_secs_f64() * 1e3);
        }
        let mut trues = Vec::new();
        for _ in 0..100 {
            let start = Instant::now();
            Command::new("true").status()?;
            trues.push(start.elapsed().as_secs_f64() * 1e3);
        }
        let size = fs::metadata(&self.program)?.len() as f64 / f64::from(1 << 20);
        let (version, nothing) = (median(times), median(trues));
        self.say(&format!(
            "- `--version` takes {version:.1} ms (`true`: {nothing:.1} ms); the binary has {size:.1} MiB"
        ));
        if Command::new("nc").arg("-h").stderr(Stdio::null()).stdout(Stdio::null()).status().is_ok() {
            let nc =
                Way { name: "nc".into(), reach: stdio("nc", &["127.0.0.1", &target.to_string()]), servers: vec![] };
            let mut first = Vec::new();
            for _ in 0..40 {
                let start = Instant::now();
                drop(nc.open()?);
                first.push(start.elapsed().as_secs_f64() * 1e3);
            }
            let first = median(first);
            self.say(&format!("- `nc` brings the first byte after {first:.1} ms"));
        }
        Ok(())
    }

    /// Measures a key's echo while another session moves a GiB.
    fn interactive(&mut self, way: &Way) -> Any<()> {
        let (done, moved) = mpsc::channel();
        let noise = Arc::clone(&self.noise);
        let mut big = way.open()?;
        let mover = thread::spawn(move || -> Any<()> {
            let moved = big.down(&noise, 1 << 30);
            let _ = done.send(());
            moved
        });
        let mut all = Vec::new();
        let mut link = way.open()?;
        while moved.try_recv() == Err(mpsc::TryRecvError::Empty) {
            all.extend(link.echo(20, Duration::from_millis(5))?);
        }
        mover.join().map_err(|_| "the mover failed")??;
        all.sort_by(f64::total_cmp);
        self.say(&format!(
            "- {}: while 1 GiB flows in another session, a key's echo takes {:.2} ms p50, {:.2} ms p99 (goal 50; {} keys)",
            way.name, percentile(&all, 50) / 1e3, percentile(&all, 99) / 1e3, all.len()
        ));
        Ok(())
    }

    /// Measures many sessions at once through one server.
    fn scale(&mut self, way: &Way) -> Any<()> {
        const SESSIONS: usize = 200;
        const MIB: usize = 4;
        let start = Instant::now();
        let mut links = Vec::new();
        for batch in 0..SESSIONS / 20 {
            let opened: Vec<Any<Link>> = thread::scope(|scope| {
                let tries: Vec<_> = (0..20).map(|_| scope.spawn(|| way.open())).collect();
                tries.into_iter().map(|one| one.join().unwrap_or_else(|_| Err("a thread failed".into()))).collect()
            });
            for link in opened {
                links.push(link.map_err(|e| format!("session {}: {e}", batch * 20))?);
            }
        }
        let opened = start.elapsed();
        let start = Instant::now();
        let noise = &self.noise;
        let failed = thread::scope(|scope| {
            let all: Vec<_> = links
                .iter_mut()
                .map(|link| {
                    scope.spawn(move || {
                        link.up(noise, MIB << 20)?;
                        link.down(noise, MIB << 20)
                    })
                })
                .collect();
            all.into_iter().filter_map(|one| one.join().ok()).filter(Result::is_err).count()
        });
        let time = start.elapsed().as_secs_f64();
        let server: f64 = way.servers.iter().map(|pid| memory(*pid, "VmHWM:")).sum();
        self.say(&format!(
            "- {}: {SESSIONS} sessions open in {:.1} s; {MIB} MiB up and down in each, all at once: {:.0} MiB/s together, \
             {failed} failed; the server's memory at peak: {server:.0} MiB",
            way.name,
            opened.as_secs_f64(),
            (SESSIONS * MIB * 2) as f64 / time,
        ));
        Ok(())
    }
}

fn stdio(program: &str, args: &[&str]) -> Reach {
    let (program, args) = (program.to_owned(), args.iter().map(|arg| (*arg).to_owned()).collect::<Vec<_>>());
    Reach::Stdio(Box::new(move || {
        let mut command = Command::new(&program);
        command.args(&args).stderr(Stdio::null());
        command
    }))
}

fn wait_for(port: u16) -> Any<()> {
    let deadline = Instant::now() + Duration::from_secs(5);
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        if Instant::now() > deadline {
            return Err(format!("nothing listens on port {port}").into());
        }
        thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

fn machine() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let info = read("/proc/cpuinfo");
    let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split(": ").nth(1)).unwrap_or("?");
    let cores = thread::available_parallelism().map_or(0, usize::from);
    let load = read("/proc/loadavg");
    let load = load.split(' ').next().unwrap_or("?");
    let kernel = read("/proc/sys/kernel/osrelease");
    format!("{cores} cores of {model}, Linux {}, load {load} when it began", kernel.trim())
}
