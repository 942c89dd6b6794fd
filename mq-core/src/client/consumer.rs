//! A member of a consumer group: shares the queues with the others and hands out messages one by one.

use std::sync::{Arc, Mutex};

use tokio::sync::{Notify, Semaphore, mpsc, watch};
use tokio::task::JoinHandle;

use super::assignment::Sharing;
use super::delivery::Delivery;
#[cfg(feature = "engine")]
use super::embedded::Embedded;
use super::fetching::Fetched;
use super::member::{Member, Wake};
use super::remote::{self, Place, Remote};
use super::{ClientError, Transport};
#[cfg(feature = "engine")]
use crate::broker::Broker;
use crate::filter::Filter;
use crate::membership::{ConsumeFrom, Membership, Subscription};
use crate::names::{GroupName, TopicName};

/// How many messages wait for [`Consumer::next`] at most.
const WAITING: usize = 256;
/// How many bytes of messages are read ahead unless told otherwise: enough to hide a round trip, not to fill a memory.
const PREFETCH_BYTES: u32 = 4 << 20;

/// Collects what a [`Consumer`] wants.
#[derive(Debug, Clone)]
pub struct Builder {
    group: String,
    subscriptions: Vec<(String, String)>,
    from: ConsumeFrom,
    sharing: Sharing,
    client_id: Option<String>,
    prefetch_bytes: u32,
}

/// A member of a consumer group.
///
/// Every message of the subscribed topics goes to one member of the group at least once; more often after a crash, when a
/// message is not acknowledged, or around the moment members come and go.
#[derive(Debug)]
pub struct Consumer {
    fetched: mpsc::Receiver<Result<Fetched, ClientError>>,
    stop: watch::Sender<bool>,
    tasks: Vec<JoinHandle<()>>,
}

impl Builder {
    /// Reads a topic. The expression selects tags: `a || b`, or `*` for all.
    #[must_use]
    pub fn subscribe(mut self, topic: impl Into<String>, expression: impl Into<String>) -> Self {
        self.subscriptions.push((topic.into(), expression.into()));
        self
    }

    /// Where the group starts in queues it has never read; with the oldest message unless told otherwise.
    #[must_use]
    pub const fn from(mut self, from: ConsumeFrom) -> Self {
        self.from = from;
        self
    }

    /// How the group shares queues; all members must say the same.
    #[must_use]
    pub const fn sharing(mut self, sharing: Sharing) -> Self {
        self.sharing = sharing;
        self
    }

    /// The client id, unique in the group; random unless told otherwise.
    #[must_use]
    pub fn client_id(mut self, id: impl Into<String>) -> Self {
        self.client_id = Some(id.into());
        self
    }

    /// How many bytes of messages are read ahead; 4 MiB unless told otherwise. One message always fits.
    #[must_use]
    pub const fn prefetch_bytes(mut self, bytes: u32) -> Self {
        self.prefetch_bytes = bytes;
        self
    }

    /// Joins the group at the broker in this process.
    ///
    /// # Errors
    /// [`ClientError::Refused`] for a name or expression that breaks a rule; otherwise what the broker says.
    #[cfg(feature = "engine")]
    pub async fn attach(self, broker: &Broker) -> Result<Consumer, ClientError> {
        self.over(Arc::new(Embedded(broker.clone()))).await
    }

    /// Joins the group at the brokers behind `nameservers`: `HOST:PORT`, several separated by `;`; empty text takes the
    /// environment variable `NAMESRV_ADDR`.
    ///
    /// Brokers that are not reached now are joined later. A consumer outlives them: [`Consumer::next`] waits until they are
    /// back.
    ///
    /// # Errors
    /// Like [`Self::attach`]; [`ClientError::Unavailable`] when no nameserver or no broker answers.
    pub async fn connect(self, nameservers: &str) -> Result<Consumer, ClientError> {
        let group = self.membership()?.group;
        let place = Place::Consumer(group.clone());
        let id = self.client_id.as_deref();
        let (network, taken) = remote::network(nameservers, id, Some(place)).await?;
        let remote = Remote::new(network, group.as_str(), taken);
        self.over(Arc::new(remote)).await
    }

    /// Joins the group over any transport. When this returns, the group's starting offsets are durable: whatever is stored
    /// from now on will be delivered.
    ///
    /// # Errors
    /// Like [`Self::attach`].
    pub async fn over(self, transport: Arc<dyn Transport>) -> Result<Consumer, ClientError> {
        let membership = self.membership()?;
        let look = Arc::new(Notify::new());
        let link = Arc::new(Wake(Arc::clone(&look)));
        let client_id = self.client_id.map(Into::into);
        let attachment = transport.attach(client_id, link).await?;
        let (out, fetched) = mpsc::channel(WAITING);
        let stop = watch::Sender::new(false);
        let member = Arc::new(Member {
            transport,
            membership,
            sharing: self.sharing,
            client_id: Arc::clone(attachment.client_id()),
            room: Arc::new(Semaphore::new(self.prefetch_bytes.max(1) as usize)),
            room_bytes: self.prefetch_bytes.max(1),
            queues: Mutex::default(),
            look,
            settle: Arc::new(Notify::new()),
        });
        attachment.announce(member.announcement()).await?;
        let tasks = vec![
            tokio::spawn(Arc::clone(&member).settle(stop.subscribe())),
            tokio::spawn(member.rebalance(attachment, out, stop.subscribe())),
        ];
        Ok(Consumer {
            fetched,
            stop,
            tasks,
        })
    }

    fn membership(&self) -> Result<Membership, ClientError> {
        let refused = |error: &dyn ToString| ClientError::Refused(error.to_string());
        if self.subscriptions.is_empty() {
            return Err(refused(
                &"the consumer has no subscription; call subscribe()",
            ));
        }
        let mut subscriptions = Vec::new();
        for (topic, expression) in &self.subscriptions {
            let topic = TopicName::new(topic).map_err(|e| refused(&e))?;
            let filter = Filter::parse(expression).map_err(|e| refused(&e))?;
            subscriptions.push(Subscription { topic, filter });
        }
        let group = GroupName::new(&self.group).map_err(|e| refused(&e))?;
        Ok(Membership {
            group,
            subscriptions,
            from: self.from,
            broadcasting: false,
        })
    }
}

impl Consumer {
    /// Starts a consumer of a group.
    #[must_use]
    pub fn builder(group: impl Into<String>) -> Builder {
        Builder {
            group: group.into(),
            subscriptions: Vec::new(),
            from: ConsumeFrom::default(),
            sharing: Sharing::default(),
            client_id: None,
            prefetch_bytes: PREFETCH_BYTES,
        }
    }

    /// The next message; `None` once the broker is closed. Cancel safe: a future that is dropped loses no message.
    ///
    /// # Errors
    /// [`ClientError::Refused`] when the broker refuses to go on with a queue. It is asked again every 20 s, so the call may
    /// be repeated.
    pub async fn next(&mut self) -> Result<Option<Delivery>, ClientError> {
        while let Some(fetched) = self.fetched.recv().await {
            let Fetched {
                received, assigned, ..
            } = fetched?;
            // Read ahead for a queue that is another's by now: it is delivered there.
            if !assigned.is_revoked() {
                return Ok(Some(Delivery::new(received, assigned)));
            }
        }
        Ok(None)
    }

    /// How many messages were read ahead and wait for [`Self::next`].
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.fetched.len()
    }

    /// Leaves the group after everything said so far is settled: messages are sent back and offsets committed. Dropping a
    /// consumer leaves as well, but does not wait.
    ///
    /// # Errors
    /// [`ClientError::Unknown`] when a task of the consumer has panicked.
    pub async fn close(mut self) -> Result<(), ClientError> {
        self.stop.send_replace(true);
        for task in std::mem::take(&mut self.tasks) {
            task.await
                .map_err(|error| ClientError::Unknown(error.to_string()))?;
        }
        Ok(())
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        self.stop.send_replace(true);
    }
}
