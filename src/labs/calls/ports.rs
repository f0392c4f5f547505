//! The port forwards that are saved with a play.

use hyper::Method;

use crate::{
    error::Result,
    labs::{
        Call, Labs,
        wire::{PortForward, SavedForward},
    },
};

impl Labs {
    /// Lists the port forwards that are saved with a play, in the order of their indices.
    ///
    /// # Errors
    /// As every call.
    pub async fn port_forwards(&self, play: &str) -> Result<Vec<SavedForward>> {
        let about = format!("the port forwards of playground {play}");
        // An index is a place in the list as it came, so the list keeps every element.
        let all: Option<Vec<serde_json::Value>> =
            self.call(Call::get(format!("/plays/{play}/port-forwards"), about)).await?;
        Ok(all.unwrap_or_default().into_iter().map(SavedForward::from).collect())
    }

    /// Saves a port forward with a play. Never repeated after an unknown outcome; see [`Error::may_have_happened`].
    ///
    /// # Errors
    /// As every call.
    pub async fn save_port_forward(&self, play: &str, forward: &PortForward) -> Result<()> {
        let about = format!("the port forwards of playground {play}");
        self.send(Call::post(format!("/plays/{play}/port-forwards"), forward, about)?.once()).await.map(drop)
    }

    /// Forgets a saved port forward. Those behind it move up, so that a repetition would forget another one.
    ///
    /// # Errors
    /// As every call; [`Kind::NotFound`] when there is none of that index.
    pub async fn forget_port_forward(&self, play: &str, index: usize) -> Result<()> {
        let about = format!("port forward {index} of playground {play}");
        let call = Call::new(Method::DELETE, format!("/plays/{play}/port-forwards/{index}"), about);
        self.send(call.once()).await.map(drop)
    }
}
