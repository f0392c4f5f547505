//! The catalogue.

use crate::{
    error::Result,
    labs::{Call, Labs, wire::CatalogEntry},
};

impl Labs {
    /// Lists the catalogue's official entries.
    ///
    /// # Errors
    /// As every call.
    pub async fn catalog(&self) -> Result<Vec<CatalogEntry>> {
        self.list(Call::get("/playgrounds", "the catalogue")).await
    }

    /// Lists the playgrounds that the account has made itself.
    ///
    /// # Errors
    /// As every call.
    pub async fn own_playgrounds(&self) -> Result<Vec<CatalogEntry>> {
        self.filtered_catalog("my-custom").await
    }

    /// Lists the playgrounds of one of the platform's filters.
    ///
    /// # Errors
    /// As every call.
    pub async fn filtered_catalog(&self, filter: &str) -> Result<Vec<CatalogEntry>> {
        self.list(Call::get(format!("/playgrounds?filter={filter}"), "the catalogue")).await
    }

    /// One catalogue entry with everything that its manifest has.
    ///
    /// # Errors
    /// As [`Labs::catalog_entry`].
    pub async fn whole_catalog_entry(&self, name: &str) -> Result<CatalogEntry> {
        let about = format!("the catalogue entry `{name}`");
        self.call(Call::get(format!("/playgrounds/{name}?format=extended"), about)).await
    }

    /// One catalogue entry.
    ///
    /// # Errors
    /// As every call; [`Kind::NotFound`] when there is none of that name.
    pub async fn catalog_entry(&self, name: &str) -> Result<CatalogEntry> {
        self.call(Call::get(format!("/playgrounds/{name}"), format!("the catalogue entry `{name}`"))).await
    }
}
