// A device that claims: AWS's own device SDK for Node (npm: aws-iot-device-sdk-v2), unmodified. It takes what
// scripts/claim_device.py takes, and prints the same; then it connects with its own certificate, and publishes a message.

import { once } from "node:events";
import { readFileSync } from "node:fs";
import { iot, iotidentity, mqtt5 } from "aws-iot-device-sdk-v2";

const SECONDS = 20;

async function connected(builder, asked, clientId) {
    builder.withPort(asked.port);
    builder.withCertificateAuthorityFromPath(undefined, asked.ca);
    builder.withConnectProperties({ clientId, keepAliveIntervalSeconds: 30 });
    const client = new mqtt5.Mqtt5Client(builder.build());
    client.on("connectionFailure", ({ error }) => {
        throw error;
    });
    const success = once(client, "connectionSuccess");
    client.start();
    await success;
    return client;
}

async function stop(client) {
    const stopped = once(client, "stopped");
    client.stop();
    await stopped;
    client.close();
}

async function register(identity, asked, certificateOwnershipToken) {
    const { template: templateName, parameters } = asked;
    try {
        const { thingName, deviceConfiguration } = await identity.registerThing({
            templateName,
            certificateOwnershipToken,
            parameters,
        });
        return { thingName, deviceConfiguration };
    } catch (error) {
        const { statusCode, errorCode, errorMessage } = error.modeledError ?? { errorMessage: `${error}` };
        return { statusCode, errorCode, errorMessage };
    }
}

const builders = iot.AwsIotMqtt5ClientConfigBuilder;
const asked = JSON.parse(process.argv[2]);
const byClaim = builders.newDirectMqttBuilderWithMtlsFromPath(asked.endpoint, asked.certificate, asked.privateKey);
const client = await connected(byClaim, asked, asked.clientId);
const identity = iotidentity.IotIdentityClientv2.newFromMqtt5(client, {
    maxRequestResponseSubscriptions: 4,
    maxStreamingSubscriptions: 2,
    operationTimeoutInSeconds: SECONDS,
});
const made = asked.csr
    ? await identity.createCertificateFromCsr({ certificateSigningRequest: asked.csr })
    : await identity.createKeysAndCertificate({});
const answers = [];
for (let time = 0; time < asked.times; time++) {
    answers.push(await register(identity, asked, made.certificateOwnershipToken));
}
identity.close();
await stop(client);

const { certificateId, certificatePem, privateKey } = made;
if (answers.at(-1).thingName) {
    const key = privateKey ?? readFileSync(asked.deviceKey, "utf8");
    const id = asked.parameters.SerialNumber;
    const byItself = builders.newDirectMqttBuilderWithMtlsFromMemory(asked.endpoint, certificatePem, key);
    const device = await connected(byItself, asked, id);
    await device.publish({ topicName: `devices/${id}/telemetry`, payload: "hello", qos: mqtt5.QoS.AtLeastOnce });
    await stop(device);
}
console.log(JSON.stringify({ certificateId, certificatePem, privateKey: privateKey ?? null, answers }));
process.exit();
