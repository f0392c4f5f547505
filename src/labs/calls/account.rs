//! Logins, and the account that they are for.

use std::sync::Arc;

use hyper::Method;

use crate::{
    error::Result,
    labs::{
        Call, Labs,
        answer::{answered, decode},
        wire::{Login, Me},
    },
    secrets,
};

impl Labs {
    /// Begins a login: a session to be confirmed in the browser.
    ///
    /// # Errors
    /// As every call.
    pub async fn create_session(&self) -> Result<Login> {
        let anonymous = Labs { authorization: Arc::default(), account_file: None, ..self.clone() };
        let reply = anonymous.send(Call::new(Method::POST, "/sessions", "the login")).await?;
        let session: Login = decode(&answered(reply, "the login")?, "the login")?;
        // The address is no secret here, because the user has to see it.
        [&session.id, &session.access_token].into_iter().for_each(|secret| secrets::keep(secret));
        Ok(session)
    }

    /// Looks at a session, which need not be confirmed yet.
    ///
    /// # Errors
    /// As every call.
    pub async fn session(&self, id: &str) -> Result<Login> {
        self.call(Call::get(format!("/sessions/{id}"), "the login")).await
    }

    /// Ends a session at the platform.
    ///
    /// # Errors
    /// As every call.
    pub async fn delete_session(&self, id: &str) -> Result<()> {
        self.send(Call::new(Method::DELETE, format!("/sessions/{id}"), "the logout")).await.map(drop)
    }

    /// The account that these credentials belong to.
    ///
    /// # Errors
    /// As every call.
    pub async fn me(&self) -> Result<Me> {
        self.call(Call::get("/auth/me?authenticate=true", "the account")).await
    }

    /// Chooses the region in which new playgrounds run.
    ///
    /// # Errors
    /// As every call; the platform's words for a region that it does not have.
    pub async fn prefer_region(&self, region: &str) -> Result<Me> {
        let wish = serde_json::json!({ "region": region });
        let call = Call::post("/account/preferences", &wish, "the account's region")?;
        self.call(Call { method: Method::PATCH, ..call }).await
    }
}
