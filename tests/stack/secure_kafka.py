"""A broker that asks who comes in: TLS with client certificates, SASL over TLS and without it, and ACLs."""

from __future__ import annotations

from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)

from .kafka import Broker
from .keycloak import KAFKA, Keycloak
from .process import free_port
from .relay import Relay
from .tls import STORE_PASSWORD, Authority

MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER")
USER, PASSWORD = "isk", "correct-horse-battery"
LOGIN = "org.apache.kafka.common.security"


class SecureBroker(Broker):
    """`bootstrap` is open and may do everything; `mtls`, `sasl_ssl` and `sasl_plain` are for whom ACLs let."""

    name = "secure-kafka"

    def __init__(self, authority: Authority) -> None:
        super().__init__()
        self.authority = authority
        self.mtls, self.sasl_ssl, self.sasl_plain = (f"127.0.0.1:{free_port()}" for _ in range(3))

    def node(self) -> dict[str, str]:
        listeners = {"CLIENT": self.bootstrap, "MTLS": self.mtls, "SASLSSL": self.sasl_ssl, "SASLPLAIN": self.sasl_plain}
        own = super().node()
        own["advertised.listeners"] = ",".join(f"{name}://{address}" for name, address in listeners.items())
        own["listeners"] = f"{own['advertised.listeners']},CONTROLLER://127.0.0.1:{self.controller_port}"
        own["listener.security.protocol.map"] = (
            "CLIENT:PLAINTEXT,CONTROLLER:PLAINTEXT,MTLS:SSL,SASLSSL:SASL_SSL,SASLPLAIN:SASL_PLAINTEXT"
        )
        own |= {
            "ssl.keystore.type": "PKCS12",
            "ssl.keystore.location": str(self.authority.keystore),
            "ssl.keystore.password": STORE_PASSWORD,
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": str(self.authority.ca_file),
            "listener.name.mtls.ssl.client.auth": "required",
            "sasl.enabled.mechanisms": ",".join(MECHANISMS),
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users": "User:ANONYMOUS",
        }
        for listener in ("saslssl", "saslplain"):
            prefix = f"listener.name.{listener}"
            own |= {
                f"{prefix}.plain.sasl.jaas.config": f'{LOGIN}.plain.PlainLoginModule required user_{USER}="{PASSWORD}";',
                f"{prefix}.scram-sha-256.sasl.jaas.config": f"{LOGIN}.scram.ScramLoginModule required;",
                f"{prefix}.scram-sha-512.sasl.jaas.config": f"{LOGIN}.scram.ScramLoginModule required;",
                f"{prefix}.oauthbearer.sasl.jaas.config": f"{LOGIN}.oauthbearer.OAuthBearerLoginModule required;",
            }
        return own

    def admin(self) -> AdminClient:
        return AdminClient({"bootstrap.servers": self.bootstrap})

    def add_user(self, name: str = USER, password: str = PASSWORD) -> None:
        """For SCRAM; PLAIN's are in the broker's configuration, and OAUTHBEARER believes what a token says."""
        admin = self.admin()
        for mechanism in (ScramMechanism.SCRAM_SHA_256, ScramMechanism.SCRAM_SHA_512):
            # A user is altered once in a request.
            wanted = UserScramCredentialUpsertion(name, ScramCredentialInfo(mechanism, 4096), password.encode())
            for done in admin.alter_user_scram_credentials([wanted]).values():
                done.result(30)

    def allow(self, principal: str, topic: str, *operations: str) -> None:
        acls = [
            AclBinding(
                ResourceType.TOPIC,
                topic,
                ResourcePatternType.LITERAL,
                f"User:{principal}",
                "*",
                AclOperation[operation],
                AclPermissionType.ALLOW,
            )
            for operation in operations
        ]
        admin = self.admin()
        for done in admin.create_acls(acls).values():
            done.result(30)

    def allow_nothing(self, principal: str) -> None:
        """Takes away what a principal was allowed."""
        every = AclBindingFilter(
            ResourceType.TOPIC, None, ResourcePatternType.LITERAL, f"User:{principal}", None, AclOperation.ANY, AclPermissionType.ALLOW
        )
        admin = self.admin()
        for done in admin.delete_acls([every]).values():
            done.result(30)


class TokenBroker(SecureBroker):
    """Over TLS it takes the tokens of a Keycloak, for as long as they are good: sessions end with them (KIP-368).

    Principals are the clients that the tokens are for. `far` is its address behind `relay`.
    """

    def __init__(self, authority: Authority, keycloak: Keycloak) -> None:
        super().__init__(authority)
        self.keycloak = keycloak
        self.relay = Relay(f"kafka://{self.sasl_ssl}")
        self.far = self.relay.address

    def node(self) -> dict[str, str]:
        own = super().node()
        own["advertised.listeners"] = own["advertised.listeners"].replace(self.sasl_ssl, self.far)
        handler = f"{LOGIN}.oauthbearer.OAuthBearerValidatorCallbackHandler"
        return own | {
            "listener.name.saslssl.oauthbearer.sasl.server.callback.handler.class": handler,
            "listener.name.saslssl.oauthbearer.connections.max.reauth.ms": "3600000",
            "sasl.oauthbearer.jwks.endpoint.url": self.keycloak.keys,
            "sasl.oauthbearer.expected.audience": KAFKA,
            "sasl.oauthbearer.expected.issuer": self.keycloak.secure_issuer,
            "sasl.oauthbearer.sub.claim.name": "azp",
            "sasl.oauthbearer.clock.skew.seconds": "0",
        }

    def environment(self) -> dict[str, str]:
        return {"JAVA_TOOL_OPTIONS": f"-Dorg.apache.kafka.sasl.oauthbearer.allowed.urls={self.keycloak.keys}"}

    def __exit__(self, *_: object) -> None:
        super().__exit__()
        self.relay.close()
