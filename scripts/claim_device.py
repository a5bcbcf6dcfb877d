"""A device that claims: AWS's own device SDK (PyPI: awsiotsdk), unmodified, in a process and an environment of its own.

    .venv-device/bin/python scripts/claim_device.py '{"endpoint": "localhost", "port": 8883, "clientId": "sn-1", ...}'

It asks for a certificate, for a key of AWS IoT's or for the one of its own signing request (`csr`, in PEM), registers with it as
often as `times` says, and prints the answers as JSON.
"""

import json
import sys
from concurrent.futures import FIRST_COMPLETED, Future, wait

from awscrt.mqtt import QoS
from awsiot import iotidentity, mqtt_connection_builder

SECONDS = 20


def subscribed(subscribe, request) -> Future:
    """The first message of a subscription, once it comes."""
    message: Future = Future()
    done, _ = subscribe(request, QoS.AT_LEAST_ONCE, lambda it: message.done() or message.set_result(it))
    done.result(SECONDS)
    return message


def first(accepted: Future, rejected: Future) -> tuple[str, object]:
    done, _ = wait([accepted, rejected], timeout=SECONDS, return_when=FIRST_COMPLETED)
    if not done:
        raise SystemExit("no answer")
    return ("accepted", accepted.result()) if accepted in done else ("rejected", rejected.result())


def with_key(client: iotidentity.IotIdentityClient) -> tuple[str, object]:
    topics = iotidentity.CreateKeysAndCertificateSubscriptionRequest()
    accepted = subscribed(client.subscribe_to_create_keys_and_certificate_accepted, topics)
    rejected = subscribed(client.subscribe_to_create_keys_and_certificate_rejected, topics)
    request = iotidentity.CreateKeysAndCertificateRequest()
    client.publish_create_keys_and_certificate(request, QoS.AT_LEAST_ONCE).result(SECONDS)
    return first(accepted, rejected)


def of_csr(client: iotidentity.IotIdentityClient, csr: str) -> tuple[str, object]:
    topics = iotidentity.CreateCertificateFromCsrSubscriptionRequest()
    accepted = subscribed(client.subscribe_to_create_certificate_from_csr_accepted, topics)
    rejected = subscribed(client.subscribe_to_create_certificate_from_csr_rejected, topics)
    request = iotidentity.CreateCertificateFromCsrRequest(certificate_signing_request=csr)
    client.publish_create_certificate_from_csr(request, QoS.AT_LEAST_ONCE).result(SECONDS)
    return first(accepted, rejected)


def register(client: iotidentity.IotIdentityClient, template: str, token: str, parameters: dict[str, str]) -> dict:
    topics = iotidentity.RegisterThingSubscriptionRequest(template_name=template)
    accepted = subscribed(client.subscribe_to_register_thing_accepted, topics)
    rejected = subscribed(client.subscribe_to_register_thing_rejected, topics)
    request = iotidentity.RegisterThingRequest(
        template_name=template, certificate_ownership_token=token, parameters=parameters
    )
    client.publish_register_thing(request, QoS.AT_LEAST_ONCE).result(SECONDS)
    answer, message = first(accepted, rejected)
    if answer == "accepted":
        return {"thingName": message.thing_name, "deviceConfiguration": message.device_configuration}
    return {"statusCode": message.status_code, "errorCode": message.error_code, "errorMessage": message.error_message}


def main() -> None:
    asked = json.loads(sys.argv[1])
    connection = mqtt_connection_builder.mtls_from_path(
        endpoint=asked["endpoint"],
        port=asked["port"],
        cert_filepath=asked["certificate"],
        pri_key_filepath=asked["privateKey"],
        ca_filepath=asked["ca"],
        client_id=asked["clientId"],
        clean_session=True,
        keep_alive_secs=30,
    )
    connection.connect().result(SECONDS)
    client = iotidentity.IotIdentityClient(connection)
    answer, made = of_csr(client, asked["csr"]) if "csr" in asked else with_key(client)
    if answer == "rejected":
        raise SystemExit(f"no certificate: {made.error_code}")
    token, parameters = made.certificate_ownership_token, asked["parameters"]
    answers = [register(client, asked["template"], token, parameters) for _ in range(asked["times"])]
    connection.disconnect().result(SECONDS)
    print(
        json.dumps(
            {
                "certificateId": made.certificate_id,
                "certificatePem": made.certificate_pem,
                "privateKey": getattr(made, "private_key", None),
                "answers": answers,
            }
        )
    )


if __name__ == "__main__":
    main()
