"""Tokens, requests, decisions and certificates over the enrolment port."""

from __future__ import annotations

import asyncio

import pytest

from bedside.core.errors import MalformedError, TrustError
from bedside.core.signing import digest
from bedside.proto.v1.enrolment_pb2 import RequestPhase
from bedside.proto.v1.identity_pb2 import Role
from bedside.proto.v1.trustee_pb2 import CredentialDecision
from bedside.service.link.errors import remote_errors


async def test_a_site_token_leads_to_a_certificate_once_the_site_has_listed_the_device(federation):
    async with federation.coordinator() as desk:
        await desk.populate(devices=0)
        site = federation.sites["alder"]
        member = site.new_member(Role.ROLE_DEVICE)
        asking = asyncio.create_task(desk.request(member, site.token("test", federation.public)))
        trustee = desk.trustees()[0]
        (item,) = await trustee.items()
        site.grant(member, "test")
        await desk.publish(site)
        request_digest = digest(item.enrol.request.payload)
        await trustee.stub.PutDecision(CredentialDecision(request_digest=request_digest, credential=member.own.signed))
        state = await asking
        assert state.phase == RequestPhase.REQUEST_PHASE_ACTIVE
        assert state.credential == member.own.signed
        assert not state.needs_approval
        await desk.certify(member)
        await desk.device(member).beat()


async def test_a_token_for_one_use_is_used_once_but_the_same_request_may_be_repeated(federation):
    async with federation.coordinator() as desk:
        site = federation.sites["alder"]
        token = site.token("test", federation.public)
        first = desk.enrol_request(site.new_member(Role.ROLE_DEVICE), token)
        for _ in range(2):
            await desk.enrolment.RequestCredential(first)
        with pytest.raises(TrustError) as caught:
            await desk.request(site.new_member(Role.ROLE_DEVICE), token)
        assert caught.value.code == "token-used-up"


async def test_an_expired_or_foreign_token_is_refused(federation):
    async with federation.coordinator() as desk:
        alder, birch = federation.sites.values()
        member = alder.new_member(Role.ROLE_DEVICE)
        with pytest.raises(TrustError) as caught:
            await desk.request(member, alder.token("test", federation.public, hours=-1))
        assert caught.value.code == "token-expired"
        birch.name = "alder"
        with pytest.raises(TrustError) as caught:
            await desk.request(member, birch.token("test", federation.public))
        assert caught.value.code == "bad-signature"


async def test_a_request_with_a_large_nonce_is_not_taken_and_costs_the_token_nothing(federation):
    async with federation.coordinator() as desk:
        site = federation.sites["alder"]
        token, member = site.token("test", federation.public), site.new_member(Role.ROLE_DEVICE)
        with pytest.raises(MalformedError) as caught, remote_errors("coordinator"):
            await desk.enrolment.RequestCredential(desk.enrol_request(member, token, nonce=bytes(2_300_000)))
        assert caught.value.code == "bad-message"
        assert (await desk.request(member, token)).phase == RequestPhase.REQUEST_PHASE_PENDING


@pytest.mark.parametrize("version", [1 << 63, (1 << 64) - 1])
async def test_a_roster_version_that_no_database_holds_is_refused_in_words(federation, version):
    async with federation.coordinator() as desk:
        site = federation.sites["alder"]
        site.version = version - 1
        with pytest.raises(MalformedError) as caught:
            await desk.publish(site)
        assert caught.value.code == "bad-message"


async def test_a_roster_never_goes_back(federation):
    async with federation.coordinator() as desk:
        site = federation.sites["alder"]
        older, newer = site.roster("test"), site.roster("test")
        for roster in (newer, newer):
            await desk.enrolment.PublishRoster(roster)
        site.version = 0
        with pytest.raises(TrustError) as caught:
            await desk.publish(site)
        assert caught.value.code == "roster-rollback"
        assert older != newer


async def test_no_certificate_for_a_credential_that_is_on_no_roster(federation):
    async with federation.coordinator() as desk:
        site = federation.sites["alder"]
        member = site.new_member(Role.ROLE_DEVICE)
        site.grant(member, "test")
        await desk.publish(site, without=member)
        with pytest.raises(TrustError) as caught:
            await desk.certify(member)
        assert caught.value.code == "not-on-roster"
