/**
 * The page of one who is not signed in. A sign-in link brings its code in the fragment, which no server sees; it is taken
 * out of the address before it is used, so that it is neither in the history nor in a copied address.
 */
import { Alert, Anchor, Button, Code, Collapse, Loader, PasswordInput, Stack, Text, Title } from "@mantine/core";
import { useDocumentTitle } from "@mantine/hooks";
import { useRouter } from "@tanstack/react-router";
import { useCallback, useEffect, useState } from "react";
import { ApiError } from "../../api/client.ts";
import { queryClient } from "../../api/query-client.ts";
import { beginSession, type Credential } from "../../api/session.ts";
import { Logo } from "../../app/Logo.tsx";
import { ErrorBox } from "../../ui/ErrorBox.tsx";
import { useSearchState } from "../../ui/search-state.ts";
import classes from "./SignIn.module.css";
import { codeOf, wayBack } from "./way-back.ts";

/** The code of the address, which has none afterwards. */
function takeCode(): string | undefined {
  const code = codeOf(location.hash);
  if (code !== undefined) history.replaceState(history.state, "", location.pathname + location.search);
  return code;
}

export default function SignIn() {
  useDocumentTitle("Sign in · Muster");
  const router = useRouter();
  const [{ back, why }] = useSearchState({ back: "", why: "" });
  const [token, setToken] = useState("");
  const [busy, setBusy] = useState<"token" | "code">();
  const [failed, setFailed] = useState<{ with: "token" | "code"; error: unknown }>();
  const [help, setHelp] = useState(false);

  const enter = useCallback(
    async (credential: Credential) => {
      const kind = "code" in credential ? "code" : "token";
      setBusy(kind);
      setFailed(undefined);
      try {
        await beginSession(credential);
        // What another one saw in this browser is not for the one who came.
        queryClient.clear();
        await router.navigate({ href: router.history.createHref(wayBack(back)), replace: true });
      } catch (error) {
        setFailed({ with: kind, error });
      } finally {
        setBusy(undefined);
      }
    },
    [back, router],
  );

  useEffect(() => {
    const look = () => {
      const code = takeCode();
      if (code !== undefined) void enter({ code });
    };
    look();
    addEventListener("hashchange", look);
    return () => removeEventListener("hashchange", look);
  }, [enter]);

  return (
    <main className={classes.page}>
      <div className={classes.card}>
        <Stack gap="md">
          <div className={classes.brand}>
            <Logo size={30} />
            <Title order={1} size="h3">
              Muster
            </Title>
          </div>
          {busy === "code" ? (
            <div className={classes.brand} role="status">
              <Loader size={16} />
              <Text size="sm">Signing in with your link</Text>
            </div>
          ) : (
            <>
              {why === "ended" && failed === undefined && (
                <Alert color="yellow" role="status">
                  Your session has ended. Sign in to go on where you were.
                </Alert>
              )}
              {failed !== undefined && <Refusal failed={failed} />}
              <form
                onSubmit={(event) => {
                  event.preventDefault();
                  if (token.trim() !== "") void enter({ token: token.trim() });
                }}
              >
                <Stack gap="sm">
                  <PasswordInput
                    label="Token"
                    description="Of an operator or a tenant. It becomes a session of this browser and is not kept."
                    value={token}
                    onChange={(event) => setToken(event.currentTarget.value)}
                    autoComplete="off"
                    spellCheck={false}
                    data-autofocus
                    autoFocus
                  />
                  <Button type="submit" loading={busy === "token"} disabled={token.trim() === ""} fullWidth>
                    Sign in
                  </Button>
                </Stack>
              </form>
              <Anchor component="button" type="button" size="sm" onClick={() => setHelp(!help)} aria-expanded={help}>
                Where do I get in?
              </Anchor>
              <Collapse expanded={help}>
                <Stack gap={6}>
                  <Text size="sm">An operator makes a link that signs you in, once and within ten minutes:</Text>
                  <Code>muster token link</Code>
                  <Text size="sm">
                    The first token of a cluster is in the file <Code>admin.token</Code> of the controller's data
                    folder. The quickstart prints a link when it is up.
                  </Text>
                </Stack>
              </Collapse>
            </>
          )}
        </Stack>
      </div>
    </main>
  );
}

/** Why one is not let in. A refusal says the same for every wrong token, so the page says what can be done. */
function Refusal({ failed }: { failed: { with: "token" | "code"; error: unknown } }) {
  const refused = failed.error instanceof ApiError && failed.error.status === 401;
  if (refused && failed.with === "code") {
    return (
      <Alert color="red" role="alert" title="This link does not work any more">
        A sign-in link is good once, for ten minutes. Make another one with <Code>muster token link</Code>, or sign in
        with a token.
      </Alert>
    );
  }
  return <ErrorBox error={failed.error} title={refused ? "This token is not accepted" : "Signing in failed"} />;
}
