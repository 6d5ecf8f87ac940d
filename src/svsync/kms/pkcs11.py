"""The key service `pkcs11`: an AES key in a token (HSM) that never leaves it.

A wrapped key is

    "svp1" | nonce, 12 bytes | AES-256-GCM ciphertext and tag

made in the token (PKCS #11 v3.1, CKM_AES_GCM), with the first part and the context as
associated data. The key has to be sensitive and not extractable: with one that can be read
out nothing is wrapped.

A module is one for the whole process and a login is one for a whole token, so one call is
made at a time, each in a session of its own that is closed after it. A call may hang in the
module for as long as it likes: it has a thread that nobody waits for at exit.
"""

import asyncio
import os
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Final, TypeVar
from urllib.parse import unquote

from svsync.config.key_services import KeyServiceSpec
from svsync.domain.errors import ConfigError, KeyServiceAwayError, KeyServiceError
from svsync.domain.values import Credential, SecretValue
from svsync.domain.wrapping import body_of, bound, told_of, whole_key
from svsync.network import NetworkPolicy
from svsync.ports import CredentialSource, KeyService

T = TypeVar("T")

_MAGIC: Final = b"svp1"
_NONCE_SIZE: Final = 12
_TAG_BITS: Final = 128
_SECONDS: Final = 15.0
_ONE_CALL: Final = threading.Lock()


def open_service(
    spec: KeyServiceSpec,
    credential: CredentialSource | None,
    policy: NetworkPolicy,
    environ: Mapping[str, str],
) -> KeyService:
    """Nothing is contacted. Raises ConfigError where no PIN is named."""
    if credential is None:
        raise ConfigError("needs credentials_path, the token's PIN", where="kms_access")
    # As a PKCS #11 URI has them (RFC 7512): what is special there is percent-encoded.
    token, label = (unquote(part.partition("=")[2]) for part in spec.key.split(";"))
    return Pkcs11KeyService(spec.access["module"], token, label, credential)


class Pkcs11KeyService:
    """One key of one token. A PIN that was refused is not tried again: few tries lock a token."""

    __slots__ = ("_credential", "_label", "_module", "_refused", "_token", "reference")

    def __init__(self, module: str, token: str, label: str, credential: CredentialSource) -> None:
        self._module = module
        self._token = token
        self._label = label
        self._credential = credential
        self._refused: SecretValue | None = None
        self.reference = f"pkcs11:token={token};object={label}"

    def __repr__(self) -> str:
        return f"Pkcs11KeyService({self.reference!r})"

    async def wrap(self, plaintext: bytes, context: Mapping[str, str]) -> bytes:
        nonce = os.urandom(_NONCE_SIZE)

        def encrypt(key: Any) -> bytes:
            from pkcs11 import Attribute, Mechanism
            from pkcs11.mechanisms import GCMParams

            if key[Attribute.EXTRACTABLE] or not key[Attribute.SENSITIVE]:
                raise KeyServiceError(
                    f"{self.reference} may leave its token: make a key that is sensitive and not"
                    " extractable"
                )
            how = GCMParams(nonce, bound(_MAGIC, context), _TAG_BITS)
            return bytes(key.encrypt(plaintext, mechanism=Mechanism.AES_GCM, mechanism_param=how))

        return _MAGIC + nonce + await self._with_key(encrypt)

    async def unwrap(self, wrapped: bytes, context: Mapping[str, str]) -> bytes:
        body = body_of(wrapped, _MAGIC, self.reference)
        nonce, sealed = body[:_NONCE_SIZE], body[_NONCE_SIZE:]

        def decrypt(key: Any) -> bytes:
            import pkcs11

            how = pkcs11.mechanisms.GCMParams(nonce, bound(_MAGIC, context), _TAG_BITS)
            try:
                return bytes(
                    key.decrypt(sealed, mechanism=pkcs11.Mechanism.AES_GCM, mechanism_param=how)
                )
            except (
                # A wrong tag has several names; SoftHSM's is the most general one.
                pkcs11.exceptions.GeneralError,
                pkcs11.exceptions.EncryptedDataInvalid,
                pkcs11.exceptions.EncryptedDataLenRange,
                pkcs11.exceptions.ArgumentsBad,
            ):
                raise KeyServiceError(
                    f"{self.reference}: the wrapped key does not open: another key wrapped it, it"
                    " is damaged, or another one stands in its place"
                ) from None

        return whole_key(await self._with_key(decrypt), self.reference)

    # --- the token ------------------------------------------------------------------

    async def _with_key(self, work: Callable[[Any], T]) -> T:
        with told_of(self.reference):
            pin = _pin_of(await self._credential())
        if pin == self._refused:
            raise KeyServiceError(
                f"{self.reference}: the token refused this PIN, and it is not tried again: store"
                " the right one"
            )
        try:
            return await _in_thread(lambda: self._use(pin, work))
        except TimeoutError:
            raise KeyServiceAwayError(
                f"{self.reference} did not answer within {_SECONDS:.0f} s"
            ) from None

    def _use(self, pin: SecretValue, work: Callable[[Any], T]) -> T:
        try:
            import pkcs11
        except ModuleNotFoundError:
            raise KeyServiceError(
                f"{self.reference} needs the package python-pkcs11: install svsync[pkcs11]"
            ) from None
        refusals = pkcs11.exceptions
        try:
            library = pkcs11.lib(self._module)
        except RuntimeError:  # also its kind of them
            raise KeyServiceError(
                f"{self.reference}: the module {self._module} cannot be loaded, or does not start:"
                " set kms_access.module to the library of the token's maker, and look at its own"
                " configuration"
            ) from None
        try:
            # Tokens come and go: the module is asked which there are now.
            token = library.get_token(token_label=self._token)
            with token.open(user_pin=pin.reveal()) as session:
                key = session.get_key(
                    object_class=pkcs11.ObjectClass.SECRET_KEY,
                    key_type=pkcs11.KeyType.AES,
                    label=self._label,
                )
                return work(key)
        except (refusals.PinIncorrect, refusals.PinInvalid, refusals.PinLenRange):
            self._refused = pin
            says = "the token refuses the PIN: store the right one"
        except (refusals.PinLocked, refusals.PinExpired, refusals.UserPinNotInitialized):
            says = "the token's PIN is locked, expired or not set: set it anew in the token"
        except refusals.NoSuchKey:
            says = "there is no AES key of this label in the token"
        except (refusals.MultipleObjectsReturned, refusals.MultipleTokensReturned):
            says = "there are several of this label: give each one of its own"
        except (
            refusals.MechanismInvalid,
            refusals.FunctionNotSupported,
            refusals.KeyTypeInconsistent,
        ):
            says = "the token cannot use this key with AES-GCM"
        except refusals.PKCS11Error:
            # No token, none present, a device that fails: what a network HSM that is away says.
            raise KeyServiceAwayError(
                f"{self.reference}: the token is not there, or fails"
            ) from None
        raise KeyServiceError(f"{self.reference}: {says}")


def _pin_of(credential: Credential) -> SecretValue:
    """`{pin}`, or a bare string."""
    return credential.require("pin" if "pin" in credential else "token")


async def _in_thread(work: Callable[[], T]) -> T:
    """One call at a time, in a thread that may be left behind.

    Raises TimeoutError where it, or the one before it, takes too long.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, problem: BaseException | None) -> None:
        if done.done():
            return
        if problem is not None:
            done.set_exception(problem)
        else:
            done.set_result(result)  # type: ignore[arg-type]

    def run() -> None:
        result: T | None = None
        problem: BaseException | None = None
        if not _ONE_CALL.acquire(timeout=_SECONDS):
            problem = TimeoutError()
        else:
            try:
                result = work()
            except BaseException as raised:  # noqa: BLE001 - it is raised where it is waited for
                problem = raised
            finally:
                _ONE_CALL.release()
        with suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(settle, result, problem)

    threading.Thread(target=run, name="pkcs11", daemon=True).start()
    async with asyncio.timeout(_SECONDS):
        return await done
