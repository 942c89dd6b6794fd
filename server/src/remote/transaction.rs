//! Having an open transaction asked about again, by the broker that holds its half message.

use std::time::Duration;

use coordinator::transaction::TransactionId;
use mq_core::wire::reserved;

use super::Nameservers;
use super::cluster::request;
use crate::failure::Failure;

/// Has the group of transaction `id` asked now, for `operator`. Returns once a broker has taken that on.
///
/// # Errors
/// [`Failure::Negative`] with what each broker says, if none of them can ask; [`Failure::Environment`] if one cannot be
/// reached.
pub(crate) async fn ask(
    nameservers: &Nameservers,
    id: TransactionId,
    operator: &str,
) -> Result<(), Failure> {
    let mut cluster = nameservers.cluster().await?;
    let id = id.to_string();
    let fields = [("msgId", id.as_str()), (reserved::OPERATOR, operator)];
    let mut refusals = Vec::new();
    for (name, address) in cluster.brokers(None).await? {
        let asked = request(reserved::RESUME_CHECK_HALF_MESSAGE, &fields, "");
        match cluster.ask(&address, asked, Duration::ZERO).await {
            Ok(_) => return Ok(()),
            Err(Failure::Negative(why)) => refusals.push(format!("broker {name}: {why}")),
            Err(failure) => return Err(failure),
        }
    }
    Err(Failure::Negative(refusals.join("; ")))
}
