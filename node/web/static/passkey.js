// SPDX-License-Identifier: Apache-2.0
// Asks the device for a passkey and puts its answer into the form. Without it everybody signs in with the code.
"use strict";
(() => {
  const place = document.querySelector("[data-passkey]");
  if (!place || !window.PublicKeyCredential) return;
  const form = place.closest("form"), button = place.querySelector("button"), said = place.querySelector("[role=alert]");
  const isNew = Boolean(form.elements.opens);
  place.hidden = false;

  const decode = (text) => Uint8Array.from(atob(text.replaceAll("-", "+").replaceAll("_", "/")), (c) => c.charCodeAt(0));
  const encode = (raw) => btoa(String.fromCharCode(...new Uint8Array(raw))).replaceAll("+", "-").replaceAll("/", "_").replace(/=+$/, "");
  const secret = (made) => made.getClientExtensionResults().prf?.results?.first;

  const get = (asked, allowed = []) => navigator.credentials.get({
    publicKey: {
      challenge: decode(asked.challenge),
      rpId: asked.site,
      allowCredentials: allowed,
      userVerification: "required",
      extensions: { prf: { eval: { first: decode(asked.input) } } },
    },
  });

  const create = async (asked) => {
    const made = await navigator.credentials.create({
      publicKey: {
        challenge: decode(asked.challenge),
        rp: { id: asked.site, name: asked.site },
        user: { id: decode(asked.user), name: asked.name, displayName: asked.name },
        pubKeyCredParams: asked.algorithms.map((alg) => ({ type: "public-key", alg })),
        excludeCredentials: asked.known.map((id) => ({ type: "public-key", id: decode(id) })),
        authenticatorSelection: { residentKey: "required", requireResidentKey: true, userVerification: "required" },
        attestation: "none",
        extensions: { prf: { eval: { first: decode(asked.input) } } },
      },
    });
    // Many devices compute the secret only when the passkey is used: it is used once, at once.
    let key;
    if (form.elements.opens.checked) {
      key = secret(made);
      if (!key && made.getClientExtensionResults().prf?.enabled) {
        key = secret(await get(asked, [{ type: "public-key", id: made.rawId }]));
      }
    }
    return {
      id: made.id,
      client_data: encode(made.response.clientDataJSON),
      attestation: encode(made.response.attestationObject),
      prf: key ? encode(key) : "",
    };
  };

  const use = async (asked) => {
    const made = await get(asked), key = secret(made);
    return {
      id: made.id,
      client_data: encode(made.response.clientDataJSON),
      data: encode(made.response.authenticatorData),
      signature: encode(made.response.signature),
      prf: key ? encode(key) : "",
    };
  };

  button.addEventListener("click", async () => {
    said.textContent = "";
    button.disabled = true;
    try {
      const token = form.elements.token?.value;
      const answer = await fetch(place.dataset.passkey, {
        method: "POST",
        headers: { Accept: "application/json", "Content-Type": "application/x-www-form-urlencoded" },
        body: new URLSearchParams(token ? { token } : {}),
      });
      const asked = await answer.json();
      if (!answer.ok) {
        said.textContent = asked.text;
        return;
      }
      form.elements.passkey.value = JSON.stringify(isNew ? await create(asked) : await use(asked));
      form.requestSubmit();
    } catch {
      said.textContent = place.dataset.failed;
    } finally {
      button.disabled = false;
    }
  });
})();
