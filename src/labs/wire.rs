//! The platform's JSON, as it travels. Decoding is lenient: unknown fields are skipped and unknown states survive,
//! because the platform may grow faster than we do. The embedded platform serialises the same types.

mod account;
mod action;
mod catalog;
mod exposure;
mod journal;
mod learning;
mod message;
mod play;
mod ports;
mod state;
mod task;
mod tunnel;
mod units;

pub use account::{Login, Me, PremiumAccess};
pub use action::{Action, CreatePlay};
pub(crate) use catalog::Misfit;
pub use catalog::{CatalogEntry, InitCondition, InitConditions, UserAccess};
pub use exposure::{ExposePort, ExposeShell, ExposedPort, ExposedShell, PRIVATE, PUBLIC};
pub use journal::{Console, Consoles, JournalChunk, ReadJournal};
pub use learning::{
    Author, ChangeCourse, ChangeExercise, Course, Exercise, Learning, LearningKind, Lesson, LessonPlayground,
    LessonProgress, Module, ModuleProgress, Named, Progress, is_by_a_stranger,
};
pub use message::{Conn, Message};
pub use play::{Machine, MachineUser, Play, PlaygroundRef};
pub use ports::{PortForward, SavedForward, ScannedPort};
pub use state::{Condition, MachineStatus, State, StateEvent, Status};
pub use task::{Task, TaskDetails, TaskStatus};
pub use tunnel::{StartTunnel, TunnelOffer};
