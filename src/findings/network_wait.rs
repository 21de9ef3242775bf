//! A thread waits for the network.

use super::waits::waiting;
use super::{Case, Check, Finding, Role};
use crate::say;

/// Fires when at least one thread waits in cryptnet, winhttp, wininet or ws2_32.
pub(super) struct NetworkWait;

impl Check for NetworkWait {
    fn id(&self) -> &'static str {
        "network-wait"
    }

    fn role(&self) -> Role {
        Role::Remark
    }

    fn explain(&self) -> &'static str {
        "A thread waits inside Windows' network code: cryptnet (fetching a certificate, a \
         revocation list or the trust list), winhttp or wininet (a request, or looking for a \
         proxy), or ws2_32 (a socket). While it waits, everything that it holds stays held, and \
         work that needs its answer queues up behind it.\n\nA wait in cryptnet below \
         CertGetCertificateChain means that a certificate is being checked against a server that \
         does not answer, often because the machine has no way to the internet or proxy detection \
         (WPAD) hangs. Allow the address, set the proxy, or switch off the retrieval for \
         connections that do not need it."
    }

    fn check(&self, case: &Case<'_>) -> Option<Finding> {
        let next_steps = vec![
            say!("See the whole stacks: `oomscope threads DUMP --wait network`"),
            say!(
                "Check that the machine reaches what it asks for, and what proxy detection does \
                 there."
            ),
        ];
        waiting(case, self.id(), "network", 1, "wait for the network", next_steps)
    }
}
