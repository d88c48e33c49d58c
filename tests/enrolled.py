"""A device of a world's site with everything that an enrolment leaves."""

from __future__ import annotations

import hashlib
import ssl

from bedside.core.signing.envelope import SUITE, sign_message
from bedside.core.signing.trust import subject_of
from bedside.proto.v1 import identity_pb2
from bedside.service.identity import Identity, Pins, open_identity
from bedside.service.platform import SystemClock
from bedside.service.tls import PeerIdentity, create_ca, create_csr, issue_certificate, spiffe_uri

CLOCK = SystemClock()


def enrol(device, world) -> Identity:
    """Give a device of site alder everything that an enrolment leaves, for a coordinator that is never there.

    The site's roster lists it from then on.
    """
    identity = open_identity(device.path / "state" / "identity", identity_pb2.ROLE_DEVICE)
    site, ca = world.sites["alder"], create_ca("test", CLOCK.now_ns())
    ca_digest = hashlib.sha256(ssl.PEM_cert_to_DER_cert(ca.certificate_pem.decode())).digest()
    world.federation.coordinator.ca_digest = ca_digest
    pins = Pins(
        federation="test",
        root_pk=bytes(world.root.verify_key).hex(),
        authority_pk=bytes(site.authority.verify_key).hex(),
        ca_digest=ca_digest.hex(),
        site="alder",
        enrolment_address="127.0.0.1:1",
        service_address="127.0.0.1:1",
    )
    subject = subject_of(identity_pb2.ROLE_DEVICE, identity.sign_pk)
    credential = identity_pb2.Credential(
        suite=SUITE,
        federation="test",
        site="alder",
        role=identity_pb2.ROLE_DEVICE,
        subject=subject,
        sign_pk=identity.sign_pk,
        tls_key_digest=identity.tls_key_digest,
        issued_at_s=1,
        not_after_s=4_000_000_000,
    )
    identity.save_pins(pins)
    identity.save_federation(sign_message("federation", world.federation, world.root))
    identity.save_ca(ca.certificate_pem)
    saved = identity.save_credential(sign_message("credential", credential, site.authority))
    site.devices.append(type(site.trustee)(identity.signing_key, saved))
    uri = spiffe_uri("test", PeerIdentity("device", "alder", subject))
    csr = create_csr(identity.tls_key_pem, "device")
    identity.save_certificate(issue_certificate(ca, csr, uri, now_ns=CLOCK.now_ns(), days=300))
    return identity
