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

    /// One catalogue entry.
    ///
    /// # Errors
    /// As every call; [`Kind::NotFound`] when there is none of that name.
    pub async fn catalog_entry(&self, name: &str) -> Result<CatalogEntry> {
        self.call(Call::get(format!("/playgrounds/{name}"), format!("the catalogue entry `{name}`"))).await
    }
}
