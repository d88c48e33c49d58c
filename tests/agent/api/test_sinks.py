"""The call about sinks."""


async def test_what_is_sent_on_demand_is_asked_of_the_sinks_and_told(served) -> None:
    async with served.agent() as agent:
        assert await agent.send_now("out") == (3, 1, "sink-status: it answers 503")
        await agent.send_now("out", since_ns=0)
    assert served.sending.asked == [("out", None), ("out", 0)]
