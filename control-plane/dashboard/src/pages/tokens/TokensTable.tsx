import { Button, List, Text } from "@mantine/core";
import { IconLink, IconTrash } from "@tabler/icons-react";
import type { UseQueryResult } from "@tanstack/react-query";
import { useState } from "react";
import type { Loaded } from "../../api/lists.ts";
import { useIsOperator, useMe } from "../../api/me.ts";
import { type Token, useRevokeToken } from "../../api/tokens.ts";
import { ConfirmDialog } from "../../ui/ConfirmDialog.tsx";
import { CopyId } from "../../ui/CopyId.tsx";
import { EmptyState } from "../../ui/EmptyState.tsx";
import { TimeAgo } from "../../ui/TimeAgo.tsx";
import { type Column, type Facet, ThingsTable } from "../../ui/table/ThingsTable.tsx";
import { toastDone } from "../../ui/toast.tsx";
import { SignInLinkDialog } from "./SignInLinkDialog.tsx";

/** What the API calls `admin` is the operator of the cluster. */
export const roleName = (role: string) => (role === "admin" ? "operator" : role);

const columns: readonly Column<Token>[] = [
  { key: "name", title: "Name", value: (token) => token.name },
  { key: "role", title: "Role", value: (token) => roleName(token.role), width: 104 },
  { key: "project", title: "Project", value: (token) => token.project, width: 150, from: "sm" },
  {
    key: "expires",
    title: "Expires",
    value: (token) => token.expires_at,
    cell: (token) => <TimeAgo time={token.expires_at} />,
    width: 100,
  },
  {
    key: "uses",
    title: "Uses left",
    value: (token) => token.uses_left,
    width: 100,
    align: "right",
    from: "md",
  },
  {
    key: "created",
    title: "Made",
    value: (token) => token.created_at,
    cell: (token) => <TimeAgo time={token.created_at} />,
    width: 110,
    from: "sm",
  },
  {
    key: "id",
    title: "Id",
    value: (token) => token.id,
    cell: (token) => <CopyId value={token.id} short />,
    width: 130,
    from: "lg",
  },
];
const facets: readonly Facet[] = [
  { key: "role", title: "Role" },
  { key: "project", title: "Project" },
];
const idOf = (token: Token) => token.id;

export function TokensTable({ tokens }: { tokens: UseQueryResult<Loaded<Token>> }) {
  const operator = useIsOperator();
  return (
    <ThingsTable
      name="tokens"
      rows={tokens.data?.items}
      complete={tokens.data?.complete ?? false}
      error={tokens.error}
      onRetry={() => void tokens.refetch()}
      rowId={idOf}
      columns={columns}
      facets={facets}
      sort="-created"
      bulk={operator ? (chosen, clear) => <TokenActions tokens={chosen} onDone={clear} /> : undefined}
      empty={<EmptyState title="There are no tokens" cli="muster token create --role tenant --project PROJECT" />}
    />
  );
}

function TokenActions({ tokens, onDone }: { tokens: Token[]; onDone: () => void }) {
  const me = useMe();
  const [asking, setAsking] = useState<"revoke" | "link">();
  const revoke = useRevokeToken();
  const [only] = tokens;
  const mine = tokens.some(({ name }) => name === me.name);
  return (
    <>
      {tokens.length === 1 && only !== undefined && only.role !== "node" && (
        <Button
          size="compact-sm"
          variant="default"
          leftSection={<IconLink size={14} />}
          onClick={() => setAsking("link")}
        >
          Sign-in link
        </Button>
      )}
      <Button size="compact-sm" color="red" leftSection={<IconTrash size={14} />} onClick={() => setAsking("revoke")}>
        Revoke
      </Button>
      <SignInLinkDialog opened={asking === "link"} onClose={() => setAsking(undefined)} token={only} />
      <ConfirmDialog
        opened={asking === "revoke"}
        onClose={() => setAsking(undefined)}
        title={tokens.length === 1 ? `Revoke the token ${only?.name}?` : `Revoke ${tokens.length} tokens?`}
        confirm="Revoke"
        danger
        onConfirm={async () => {
          // One's own comes last: without it the others could not be revoked.
          const order = [...tokens].sort((a, b) => Number(a.name === me.name) - Number(b.name === me.name));
          for (const { id } of order) await revoke.mutateAsync(id);
          toastDone(tokens.length === 1 ? `The token ${only?.name} is revoked` : `${tokens.length} tokens are revoked`);
          onDone();
        }}
      >
        <Text size="sm">
          They end at once, with the sessions and event streams that were made with them. This cannot be undone; nodes
          that have joined stay.
        </Text>
        {mine && (
          <Text size="sm" mt="xs" fw={600}>
            The token {me.name} is your own: you will be signed out.
          </Text>
        )}
        {tokens.length > 1 && (
          <List size="sm" mt="xs">
            {tokens.slice(0, 10).map((token) => (
              <List.Item key={token.id}>
                {token.name} ({roleName(token.role)})
              </List.Item>
            ))}
            {tokens.length > 10 && <List.Item>and {tokens.length - 10} more</List.Item>}
          </List>
        )}
      </ConfirmDialog>
    </>
  );
}
