import { Button, Tabs } from "@mantine/core";
import { IconLink, IconPlus } from "@tabler/icons-react";
import { useQuery } from "@tanstack/react-query";
import { useState } from "react";
import { useIsOperator } from "../../api/me.ts";
import { sessionsQuery } from "../../api/session.ts";
import { tokensQuery } from "../../api/tokens.ts";
import { useCommands } from "../../commands/registry.ts";
import { Page } from "../../ui/Page.tsx";
import { useSearchState } from "../../ui/search-state.ts";
import { NewToken } from "./NewToken.tsx";
import { SessionsTable } from "./SessionsTable.tsx";
import { SignInLinkDialog } from "./SignInLinkDialog.tsx";
import { TokensTable } from "./TokensTable.tsx";

/** Who may call the API: tokens, and the sessions that browsers made of them. */
export default function TokenList() {
  const operator = useIsOperator();
  const [{ tab }, setSearch] = useSearchState({ tab: "tokens" });
  const [dialog, setDialog] = useState<"new" | "link">();
  const tokens = useQuery(tokensQuery());
  const sessions = useQuery(sessionsQuery());
  useCommands(
    () => [
      ...(operator ? [{ id: "new-token", title: "Make a token", run: () => setDialog("new") }] : []),
      { id: "new-link", title: "Make a sign-in link", run: () => setDialog("link") },
    ],
    [operator],
  );
  return (
    <Page
      title="Tokens and sessions"
      subtitle="Programs call the API with a token. A browser turns one into a session when somebody signs in."
      actions={
        <>
          <Button size="xs" variant="default" leftSection={<IconLink size={15} />} onClick={() => setDialog("link")}>
            Sign-in link
          </Button>
          {operator && (
            <Button size="xs" leftSection={<IconPlus size={15} />} onClick={() => setDialog("new")}>
              New token
            </Button>
          )}
        </>
      }
    >
      <Tabs
        value={tab}
        onChange={(next) => setSearch({ tab: next ?? "tokens", q: "", sort: "" } as never)}
        keepMounted={false}
      >
        <Tabs.List mb="md">
          <Tabs.Tab value="tokens">Tokens{counted(tokens.data?.items.length)}</Tabs.Tab>
          <Tabs.Tab value="sessions">Sessions{counted(sessions.data?.items.length)}</Tabs.Tab>
        </Tabs.List>
        <Tabs.Panel value="tokens">
          <TokensTable tokens={tokens} />
        </Tabs.Panel>
        <Tabs.Panel value="sessions">
          <SessionsTable sessions={sessions} />
        </Tabs.Panel>
      </Tabs>
      <NewToken opened={dialog === "new"} onClose={() => setDialog(undefined)} />
      <SignInLinkDialog opened={dialog === "link"} onClose={() => setDialog(undefined)} />
    </Page>
  );
}

const counted = (number: number | undefined) => (number === undefined ? "" : ` (${number})`);
