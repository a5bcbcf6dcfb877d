"""A device on MQTT over mTLS, as far as the demo and the tests need one."""

import queue
from pathlib import Path

import paho.mqtt.client as mqtt

PRIVATE_KEY = "private.key"
CERTIFICATE = "certificate.pem"
CA = "root-ca.pem"
SECONDS = 10


class Refused(Exception):
    """The broker said no, or hung up; the text is the MQTT 5 reason."""


class MqttDevice:
    """A client with the files that `cvm vend --out FOLDER` wrote. Every call waits for the broker's word.

    `keep` asks MQTT 3.1.1 for a session that outlives the connection."""

    def __init__(self, folder: Path, client_id: str, protocol: int = mqtt.MQTTv5, keep: bool = False) -> None:
        self.messages: queue.Queue[tuple[str, bytes]] = queue.Queue()
        self._reasons: queue.Queue = queue.Queue()
        self.session_present = False
        self._client = mqtt.Client(
            mqtt.CallbackAPIVersion.VERSION2,
            client_id=client_id,
            protocol=protocol,
            clean_session=None if protocol == mqtt.MQTTv5 else not keep,
            reconnect_on_failure=False,
        )
        self._client.tls_set(
            ca_certs=str(folder / CA), certfile=str(folder / CERTIFICATE), keyfile=str(folder / PRIVATE_KEY)
        )
        self._client.on_connect = self._connected
        self._client.on_disconnect = lambda client, data, flags, reason, properties: self._reasons.put(reason)
        self._client.on_publish = lambda client, data, packet, reason, properties: self._reasons.put(reason)
        self._client.on_subscribe = lambda client, data, packet, reasons, properties: self._reasons.put(reasons[0])
        self._client.on_message = lambda client, data, message: self.messages.put((message.topic, message.payload))

    def connect(self, endpoint: str) -> "MqttDevice":
        """Connects to `endpoint`, as host or host:port."""
        host, _, port = endpoint.partition(":")
        self._client.connect(host, int(port or 8883), keepalive=30)
        self._client.loop_start()
        try:
            self._wait()
        except Refused:
            self.close()
            raise
        return self

    def publish(self, topic: str, payload: str) -> None:
        self._client.publish(topic, payload, qos=1)
        self._wait()

    def subscribe(self, *topic_filters: str) -> None:
        """Subscribes to all in one packet, and waits for the answer to the first."""
        self._client.subscribe([(topic_filter, 1) for topic_filter in topic_filters])
        self._wait()

    def receive(self, seconds: float = SECONDS) -> tuple[str, bytes] | None:
        """The next message as topic and payload, or nothing within `seconds`."""
        try:
            return self.messages.get(timeout=seconds)
        except queue.Empty:
            return None

    def ended(self, seconds: float = SECONDS) -> bool:
        """Whether the broker ends the connection within `seconds`."""
        try:
            self._reasons.get(timeout=seconds)
        except queue.Empty:
            return False
        return True

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def __enter__(self) -> "MqttDevice":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def _connected(self, client, data, flags, reason, properties) -> None:
        self.session_present = flags.session_present
        self._reasons.put(reason)

    def _wait(self) -> None:
        try:
            reason = self._reasons.get(timeout=SECONDS)
        except queue.Empty:
            raise Refused("no answer") from None
        if reason.is_failure:
            raise Refused(str(reason))
