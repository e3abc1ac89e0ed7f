import { Button, Center, PasswordInput, Stack, Text, Title } from "@mantine/core";
import { useDocumentTitle } from "@mantine/hooks";
import { useRouter } from "@tanstack/react-router";
import { useState } from "react";
import { beginSession } from "../../api/session.ts";
import { ErrorBox } from "../../ui/ErrorBox.tsx";

export default function SignIn() {
  useDocumentTitle("Sign in · Muster");
  const router = useRouter();
  const [token, setToken] = useState("");
  const [error, setError] = useState<unknown>();
  return (
    <Center mih="100dvh" p="md">
      <form
        onSubmit={async (event) => {
          event.preventDefault();
          try {
            await beginSession({ token });
            await router.navigate({ to: "/" });
          } catch (caught) {
            setError(caught);
          }
        }}
      >
        <Stack w={340}>
          <Title order={1} size="h3">
            Muster
          </Title>
          <Text size="sm">Sign in with a token.</Text>
          <PasswordInput label="Token" value={token} onChange={(event) => setToken(event.currentTarget.value)} />
          {error !== undefined && <ErrorBox error={error} />}
          <Button type="submit">Sign in</Button>
        </Stack>
      </form>
    </Center>
  );
}
