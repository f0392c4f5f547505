//! The Kubernetes API of a playground's cluster, as it is reached from the machine that has a kubeconfig.
//!
//! ```text
//! SshClient  ->  reading: the kubeconfig there  ->  access: whom it trusts, who we are
//!     |
//!     +-- a channel to the server that it names  ->  TLS  ->  HTTP  =  api  ->  pods, find, watch
//! ```
//!
//! The API's certificate is checked against the authority of the kubeconfig, which came over the SSH connection.
//!
//! # Layout
//!
//! - [`kubeconfig`]: the words of a kubeconfig (pure), and `reading`: its place on the machine.
//! - [`access`]: TLS and authorization by it.
//! - [`api`]: requests, answers, and lines as they come.
//! - [`pods`]: pods and their containers, and how they are (pure).
//! - [`find`]: from the labels of a host name to a container on a node.
//! - [`watch`]: a list that stays true.
//! - [`document`]: a container as the API has it (pure), and [`logs`]: its words.
//! - [`ephemeral`]: a container that is added to a pod, [`amended`] as one likes (pure); [`attach`]: its streams.

pub(crate) mod access;
pub(crate) mod amended;
pub(crate) mod api;
pub(crate) mod attach;
pub(crate) mod document;
pub(crate) mod ephemeral;
pub(crate) mod find;
pub mod kubeconfig;
pub(crate) mod logs;
pub(crate) mod pods;
pub(crate) mod reading;
pub(crate) mod watch;
