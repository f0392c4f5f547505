//! `ping` over a network with a known delay. ssh's own echo over the same way is the judge.

use std::{
    io::{BufRead, BufReader, Read},
    process::Stdio,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::support::{
    Ending,
    distant::{Distant, NOTICED},
    eventually, schema,
};

/// The delays, each way.
const TO_API: Duration = Duration::from_millis(20);
const TO_MACHINE: Duration = Duration::from_millis(50);

#[test]
fn ping_says_which_part_of_the_way_is_slow() {
    let distant = Distant::new(&[]);
    let (world, id) = (&distant.world, &*distant.id);
    distant.api.delays(TO_API);
    distant.tunnels.delays(TO_MACHINE);
    let mut talk = distant.talk("cat");
    talk.echoes(NOTICED);
    let echo = (0..5).map(|_| talk.echoes(NOTICED)).min().unwrap().as_secs_f64() * 1e3;
    let said = world.run(&["ping", id, "-c", "5", "-i", "0.2", "--json"]).ok();
    let lines: Vec<Value> = said.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    lines.iter().for_each(|line| schema::check("pingLine", line));
    let [pongs @ .., end] = &lines[..] else { panic!("{said}") };
    assert!(pongs.len() == 5 && pongs.iter().all(|line| line["event"] == "pong"), "{said}");
    assert!(end["event"] == "summary" && end["sent"] == 5 && end["received"] == 5, "{said}");
    assert_eq!((&end["host"], &end["machine"]), (&format!("{}.shell-01", distant.host).into(), &"shell-01".into()));
    assert_eq!(format!("http://{}", end["through"].as_str().unwrap()), distant.api.url());
    let least = |part: &str| end[part]["min"].as_f64().unwrap();
    let (machine, platform) = (least("machineMs"), least("platformMs"));
    // Twice the delay, and no more than what ssh's own echo takes but for a busy computer.
    assert!(machine >= 100.0 && machine < echo * 1.5 + 50.0, "machine {machine} ms, ssh's echo {echo} ms");
    assert!((40.0..200.0).contains(&platform), "platform {platform} ms");
    // The record of the connection has the same from its own keepalive.
    let recorded = || distant.status(&talk)["roundTripMs"].as_f64();
    eventually("the record of the connection has its latency", || recorded().is_some());
    let recorded = recorded().unwrap();
    assert!(recorded >= 100.0 && recorded < echo * 3.0 + 100.0, "recorded {recorded} ms, ssh's echo {echo} ms");
    talk.ends();

    let text = world.run(&["ping", &distant.host, "-m", "shell-01", "-c", "1"]).ok();
    for words in
        ["PING machine shell-01 of playground ", "\npong 1 from shell-01: platform ", "\n1 sent, 1 received, 0% loss\n"]
    {
        assert!(text.contains(words), "{words}: {text}");
    }
    assert_eq!(text.matches(" min/avg/max = ").count(), 2, "{text}");

    // Ctrl-C is its usual end, after the summary.
    let start = || {
        let mut child = world.command(&["ping", id, "-i", "0.2"]).stdout(Stdio::piped()).spawn().unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut seen = String::new();
        while !seen.contains("\npong 1 ") {
            assert_ne!(out.read_line(&mut seen).unwrap(), 0, "{seen}");
        }
        (Ending(child), out)
    };
    let rest = |mut out: BufReader<_>, child: &mut Ending| {
        let mut rest = String::new();
        out.read_to_string(&mut rest).unwrap();
        (child.0.wait().unwrap().code().unwrap(), rest)
    };
    let (mut child, out) = start();
    kill_process(Pid::from_child(&child.0), Signal::INT).unwrap();
    let (code, text) = rest(out, &mut child);
    assert!(code == 130 && text.contains(" 0% loss\n"), "{code} {text}");
    // A lost connection is made again, and a playground that is stopped is not started.
    let (mut child, out) = start();
    let _ = world.local(&["stop", id]).ok();
    let (code, text) = rest(out, &mut child);
    assert!(code == 7 && text.contains("no pong ") && text.contains("% loss\n"), "{code} {text}");
    assert!(world.run(&["ping", id]).failed(7).contains("stopped"));
    assert_eq!(world.state(id), "STOPPED");
}
