"""What a data channel can't carry is left out, and nothing else."""

from transport.rtc_call import without_audio


def test_an_item_loses_its_sound_and_keeps_its_words() -> None:
    said = {"type": "input_audio", "transcript": "Hello.", "audio": "AAAA"}
    event = {"type": "conversation.item.retrieved", "item": {"id": "one", "role": "user", "content": [said]}}
    left = without_audio(event)
    assert left["item"] == {"id": "one", "role": "user", "content": [{"type": "input_audio", "transcript": "Hello."}]}
    assert left["type"] == event["type"]
    assert said["audio"] == "AAAA"  # the conversation's own item is not touched


def test_an_item_without_content_stays_as_it_is() -> None:
    event = {"type": "conversation.item.retrieved", "item": {"id": "two", "type": "function_call_output"}}
    assert without_audio(event) == event
