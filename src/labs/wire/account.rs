//! The account and its logins.

use serde::{Deserialize, Serialize};

use super::units::text_or_nothing;

/// A platform session ("login").
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct Login {
    /// Half of the credentials.
    pub id: String,
    /// The id of its account.
    pub user_id: String,
    /// True once the user has confirmed it in the browser.
    pub authenticated: bool,
    /// The other half.
    pub access_token: String,
    /// The page on which the user confirms it.
    pub auth_url: String,
}

/// `GET /auth/me`.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct Me {
    /// The account's id.
    pub id: String,
    /// The account's GitHub profile.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub github_profile_id: Option<String>,
    /// The region in which its playgrounds run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preferred_region: Option<String>,
    /// The account's plan, if it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub premium_access: Option<PremiumAccess>,
}

/// A paid plan.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(default)]
pub struct PremiumAccess {
    /// Its end, RFC 3339.
    #[serde(deserialize_with = "text_or_nothing", skip_serializing_if = "String::is_empty")]
    pub until: String,
    /// True for one without an end.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub lifetime: bool,
    /// True for a trial.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub trial: bool,
}
