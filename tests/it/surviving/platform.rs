//! The platform's part in a resume: tokens that have run out, logins that have ended, and storms of refusals. A resume
//! asks little, and never wakes anything.

use std::{fs, time::Duration};

use rustix::process::Signal;

use crate::support::{
    World,
    cut::{Cut, How, Kind},
    distant::{NOTICED, SOON, Talk, at_once, place, send},
    eventually,
    labs::{ID, Labs, enter},
};

struct Hosted {
    labs: Labs,
    tunnels: Cut,
    world: World,
}

impl Hosted {
    fn new() -> Hosted {
        let world = World::empty();
        let tunnels = Cut::start();
        let labs = Labs::behind(&world, &tunnels);
        let _ = world.run(&["config-ssh", "--yes"]).ok();
        let hosted = Hosted { labs, tunnels, world };
        place(&hosted.world, &format!("playground-{ID}"));
        hosted
    }

    fn talk(&self, command: &str) -> Talk {
        let mut ssh = self.world.ssh_program("ssh");
        let host = format!("playground-{ID}");
        if command == "-N" {
            ssh.args(["-N", &host])
        } else {
            ssh.args([&host, command])
        };
        Talk::start(&mut ssh)
    }

    fn held(&self) -> Talk {
        let before = self.tunnels.count(Kind::New);
        let mut talk = self.talk("exec cat");
        talk.echoes(NOTICED);
        assert!(self.tunnels.count(Kind::New) > before, "it is held");
        self.labs.forget_seen();
        talk
    }

    /// The requests that change something on the platform, but for those for a tunnel.
    fn acts(&self) -> Vec<String> {
        let lines = self.labs.seen().into_iter().map(|seen| seen.line);
        lines.filter(|line| !line.starts_with("GET ") && !line.ends_with("/tunnels")).collect()
    }
}

impl Drop for Hosted {
    fn drop(&mut self) {
        // The relay of a machine that is this computer.
        let home = format!("HOME={}", self.world.path("machine").display());
        for entry in fs::read_dir("/proc").unwrap().filter_map(Result::ok) {
            let read = |name: &str| fs::read(entry.path().join(name)).unwrap_or_default();
            if read("environ").split(|byte| *byte == 0).any(|one| one == home.as_bytes())
                && String::from_utf8_lossy(&read("cmdline")).contains("labctl-ssh-proxy relay")
            {
                send(entry.file_name().to_string_lossy().parse().unwrap(), Signal::KILL);
            }
        }
    }
}

#[test]
fn a_tunnel_token_that_has_run_out_is_renewed_once() {
    let hosted = Hosted::new();
    let mut talk = hosted.held();
    hosted.labs.end_tunnel_tokens("another");
    hosted.tunnels.fail(How::Reset);
    talk.echoes(NOTICED);
    let asked = hosted.labs.count(&format!("POST /api/plays/{ID}/tunnels"));
    assert_eq!(asked, 1, "{:?}", hosted.labs.seen());
    assert!(hosted.acts().is_empty(), "{:?}", hosted.acts());
    // The new one is good for the next resume.
    hosted.tunnels.fail(How::Fin);
    talk.echoes(SOON);
    assert_eq!(hosted.labs.count(&format!("POST /api/plays/{ID}/tunnels")), asked);
    talk.ends();
}

#[test]
fn a_user_who_has_logged_out_is_told_so() {
    let hosted = Hosted::new();
    let mut talk = hosted.held();
    hosted.labs.end_session("another");
    hosted.tunnels.fail(How::Reset);
    let (status, _, errors) = talk.ended(NOTICED);
    assert_eq!(status.code(), Some(255), "{errors}");
    assert!(errors.contains("log"), "{errors}");
    assert!(hosted.acts().is_empty(), "{:?}", hosted.acts());
}

/// Neither the tunnels nor the API answer with sense. The session waits, asks rarely, and goes on.
#[test]
fn a_storm_of_refusals_is_waited_out() {
    at_once([503, 429], |status| {
        let hosted = Hosted::new();
        let mut talk = hosted.held();
        hosted.labs.forget_seen();
        hosted.labs.tunnels_answer(Some(status));
        hosted.labs.instead("", status, "not now");
        hosted.tunnels.fail(How::Reset);
        talk.say("said in the storm");
        std::thread::sleep(Duration::from_secs(12));
        assert!(hosted.acts().is_empty(), "{:?}", hosted.acts());
        let (asked, dialled) =
            (hosted.labs.count("GET /api/plays") + hosted.labs.count("POST "), hosted.labs.count("GET /tunnels/"));
        assert!(asked <= 3, "{status}: the platform was asked {asked} times in 12 s");
        assert!((3..=12).contains(&dialled), "{status}: {dialled} dials in 12 s");
        hosted.labs.tunnels_answer(None);
        hosted.labs.truth();
        assert_eq!(talk.line(NOTICED), "said in the storm");
        talk.ends();
    });
}

/// A machine that is down while its client is away is not woken, and said to be down.
#[test]
fn a_resume_wakes_nothing() {
    let hosted = Hosted::new();
    let mut talk = hosted.held();
    hosted.labs.edit(ID, |play| enter(play, "STOPPED"));
    hosted.labs.tunnels_answer(Some(502));
    hosted.tunnels.fail(How::Reset);
    let (status, _, errors) = talk.ended(NOTICED);
    assert_eq!(status.code(), Some(255), "{errors}");
    assert!(errors.contains("was stopped"), "{errors}");
    assert!(hosted.acts().is_empty(), "{:?}", hosted.acts());
}

#[test]
fn a_playground_whose_time_is_up_is_told_as_such() {
    let hosted = Hosted::new();
    hosted.labs.edit(ID, |play| play["expiresIn"] = serde_json::json!(3000));
    let mut talk = hosted.held();
    // By then the proxy has asked for the end.
    eventually("the playground's end is asked for", || hosted.labs.count(&format!("GET /api/plays/{ID}")) > 0);
    hosted.labs.instead(&format!("GET /api/plays/{ID}"), 404, "no such play");
    hosted.labs.tunnels_answer(Some(404));
    hosted.tunnels.fail(How::Reset);
    let (status, _, errors) = talk.ended(NOTICED);
    assert_eq!(status.code(), Some(255), "{errors}");
    assert!(errors.contains("its time was up"), "{errors}");
    assert!(hosted.acts().is_empty(), "{:?}", hosted.acts());
}
