//! The marker databases of one process: each pool's identity, and the store that answers for it.

use std::any::Any;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use super::database::{LocalDatabase, Pool};
use super::{MarkerError, MarkerStore};
use crate::transaction::MarkerIdentity;
use mq_core::clock::{Clock, SystemClock};

/// Pools remembered besides those that were added: a service has a handful.
const REMEMBERED_POOLS: usize = 64;

/// Which database a pool leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Identity of its marker table.
    pub identity: MarkerIdentity,
    /// The file or server that holds it, to tell a database from its copy.
    pub location: String,
}

/// The databases in which this process keeps markers: one for a service, several for a sharded one.
///
/// Cheap to clone. Finished before it is handed to a producer.
///
/// ```no_run
/// # use coordinator::marker::databases::Markers;
/// # async fn example(pool: sqlx::SqlitePool) -> Result<(), coordinator::marker::MarkerError> {
/// let markers = Markers::new().add(pool.clone()).await?;
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Markers {
    clock: Arc<dyn Clock>,
    databases: Vec<(Place, Arc<dyn MarkerStore>)>,
    pools: Arc<Mutex<Vec<KnownPool>>>,
}

/// A pool is recognised by its options, which all its clones share; holding them keeps the address from being reused.
struct KnownPool {
    options: Arc<dyn Any + Send + Sync>,
    identity: MarkerIdentity,
}

impl Markers {
    /// No databases yet.
    #[must_use]
    pub fn new() -> Self {
        Self::with_clock(Arc::new(SystemClock::new()))
    }

    /// No databases yet; markers are dated by `clock`.
    #[must_use]
    pub fn with_clock(clock: Arc<dyn Clock>) -> Self {
        Self {
            clock,
            databases: Vec::new(),
            pools: Arc::default(),
        }
    }

    /// Adds the database of `pool`, creating the marker table if it is missing.
    ///
    /// # Errors
    /// [`MarkerError::Refused`] for a database that must not hold markers, that is here already, or that is a copy of one
    /// that is; [`MarkerError::Unavailable`] when it cannot be used.
    pub async fn add<DB: LocalDatabase>(self, pool: Pool<DB>) -> Result<Self, MarkerError> {
        let (place, store) = DB::open_markers(&pool, Arc::clone(&self.clock)).await?;
        let identity = place.identity;
        let added = self.add_at(place, store)?;
        added.remember(pool.connect_options(), identity);
        Ok(added)
    }

    /// Adds markers that something other than sqlx keeps; half messages for them are sent with
    /// [`crate::client::producer::Producer::half_in`].
    ///
    /// # Errors
    /// [`MarkerError::Refused`] when a database with the same identity is here already.
    pub fn add_store(self, store: Arc<dyn MarkerStore>) -> Result<Self, MarkerError> {
        let place = Place {
            identity: store.identity(),
            location: "a store of the application's own".into(),
        };
        self.add_at(place, store)
    }

    fn add_at(mut self, place: Place, store: Arc<dyn MarkerStore>) -> Result<Self, MarkerError> {
        if let Some((there, _)) = self.find(place.identity) {
            let new = &place.location;
            return Err(MarkerError::Refused(if *new == there.location {
                format!("{new} is among the marker databases already; add it once")
            } else {
                format!(
                    "{new} and {} have the same marker identity, so one is a copy of the other; give the \
                     copy a new one, as sql/marker/README.md says",
                    there.location
                )
            }));
        }
        self.databases.push((place, store));
        Ok(self)
    }

    /// The identities of all databases, in the order they were added.
    #[must_use]
    pub fn identities(&self) -> Vec<MarkerIdentity> {
        self.databases
            .iter()
            .map(|(place, _)| place.identity)
            .collect()
    }

    /// The markers of the database with this identity, if it is one of these.
    #[must_use]
    pub fn get(&self, identity: MarkerIdentity) -> Option<&Arc<dyn MarkerStore>> {
        self.find(identity).map(|(_, store)| store)
    }

    /// The identity of the database `pool` leads to. Reads it once for each pool.
    ///
    /// # Errors
    /// [`MarkerError::Refused`] when the database was not added.
    pub async fn identity_of<DB: LocalDatabase>(
        &self,
        pool: &Pool<DB>,
    ) -> Result<MarkerIdentity, MarkerError> {
        let options = pool.connect_options();
        if let Some(identity) = self.recall(Arc::as_ptr(&options).cast()) {
            return Ok(identity);
        }
        let place = DB::place(pool).await?;
        match self.find(place.identity) {
            Some((there, _)) if *there == place => {
                self.remember(options, place.identity);
                Ok(place.identity)
            }
            Some(_) | None => Err(MarkerError::Refused(format!(
                "{} is not among the producer's marker databases; add its pool with Markers::add",
                place.location
            ))),
        }
    }

    fn find(&self, identity: MarkerIdentity) -> Option<&(Place, Arc<dyn MarkerStore>)> {
        self.databases
            .iter()
            .find(|(place, _)| place.identity == identity)
    }

    fn recall(&self, options: *const ()) -> Option<MarkerIdentity> {
        let pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        pools
            .iter()
            .find(|known| std::ptr::eq(Arc::as_ptr(&known.options).cast::<()>(), options))
            .map(|known| known.identity)
    }

    fn remember(&self, options: Arc<dyn Any + Send + Sync>, identity: MarkerIdentity) {
        let mut pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        if pools.len() == REMEMBERED_POOLS {
            pools.remove(0);
        }
        pools.push(KnownPool { options, identity });
    }
}

impl Default for Markers {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Markers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.databases.iter().map(|(place, _)| place))
            .finish()
    }
}
