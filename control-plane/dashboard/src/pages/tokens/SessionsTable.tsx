import { Badge, Button, Text } from "@mantine/core";
import { IconTrash } from "@tabler/icons-react";
import type { UseQueryResult } from "@tanstack/react-query";
import { useMemo, useState } from "react";
import { ApiError } from "../../api/client.ts";
import type { Loaded } from "../../api/lists.ts";
import { useMe } from "../../api/me.ts";
import { type Session, useEndSession } from "../../api/session.ts";
import { ConfirmDialog } from "../../ui/ConfirmDialog.tsx";
import { EmptyState } from "../../ui/EmptyState.tsx";
import { TimeAgo } from "../../ui/TimeAgo.tsx";
import { type Column, ThingsTable } from "../../ui/table/ThingsTable.tsx";
import { toastDone } from "../../ui/toast.tsx";
import { browserOf } from "./lifetimes.ts";
import { roleName } from "./TokensTable.tsx";

const idOf = (session: Session) => session.id;

function columnsFor(mine: string | null): readonly Column<Session>[] {
  return [
    {
      key: "browser",
      title: "Browser",
      value: (session) => browserOf(session.agent),
      cell: (session) => (
        <>
          {browserOf(session.agent)}{" "}
          {session.id === mine && (
            <Badge size="xs" variant="light" ml={4}>
              this one
            </Badge>
          )}
        </>
      ),
    },
    { key: "token", title: "Token", value: (session) => session.token_name, width: 150 },
    { key: "role", title: "Role", value: (session) => roleName(session.role), width: 100, from: "md" },
    { key: "project", title: "Project", value: (session) => session.project, width: 130, from: "xl" },
    { key: "address", title: "Address", value: (session) => session.address, width: 150, from: "md" },
    {
      key: "used",
      title: "Last used",
      value: (session) => session.last_used_at,
      cell: (session) => <TimeAgo time={session.last_used_at} />,
      width: 110,
    },
    {
      key: "created",
      title: "Signed in",
      value: (session) => session.created_at,
      cell: (session) => <TimeAgo time={session.created_at} />,
      width: 110,
      from: "sm",
    },
    {
      key: "expires",
      title: "Ends",
      value: (session) => session.expires_at,
      cell: (session) => <TimeAgo time={session.expires_at} />,
      width: 100,
      from: "sm",
    },
    { key: "agent", title: "User-Agent", value: (session) => session.agent, hidden: true },
    { key: "id", title: "Id", value: (session) => session.id, hidden: true, width: 300 },
  ];
}

export function SessionsTable({ sessions }: { sessions: UseQueryResult<Loaded<Session>> }) {
  const { session: mine } = useMe();
  const columns = useMemo(() => columnsFor(mine ?? null), [mine]);
  const missing = sessions.error instanceof ApiError && sessions.error.status === 404;
  if (missing) return <EmptyState title="This controller has no sessions" />;
  return (
    <ThingsTable
      name="sessions"
      rows={sessions.data?.items}
      complete={sessions.data?.complete ?? false}
      error={sessions.error}
      onRetry={() => void sessions.refetch()}
      rowId={idOf}
      columns={columns}
      sort="-created"
      bulk={(chosen, clear) => <EndSessions sessions={chosen} onDone={clear} />}
      empty={
        <EmptyState title="No browser is signed in" cli="muster token link">
          Sessions appear here when somebody signs in with a token or a link.
        </EmptyState>
      }
    />
  );
}

function EndSessions({ sessions, onDone }: { sessions: Session[]; onDone: () => void }) {
  const me = useMe();
  const [asking, setAsking] = useState(false);
  const end = useEndSession();
  const mine = sessions.some(({ id }) => id === me.session);
  return (
    <>
      <Button size="compact-sm" color="red" leftSection={<IconTrash size={14} />} onClick={() => setAsking(true)}>
        End
      </Button>
      <ConfirmDialog
        opened={asking}
        onClose={() => setAsking(false)}
        title={sessions.length === 1 ? "End this session?" : `End ${sessions.length} sessions?`}
        confirm={sessions.length === 1 ? "End the session" : "End them"}
        danger
        onConfirm={async () => {
          const order = [...sessions].sort((a, b) => Number(a.id === me.session) - Number(b.id === me.session));
          for (const { id } of order) await end.mutateAsync(id);
          toastDone(sessions.length === 1 ? "The session is ended" : `${sessions.length} sessions are ended`);
          onDone();
        }}
      >
        <Text size="sm">
          Those browsers are signed out at once, with their transfers. Their tokens stay good: revoke a token to keep
          somebody out.
        </Text>
        {mine && (
          <Text size="sm" mt="xs" fw={600}>
            One of them is your own: you will be signed out.
          </Text>
        )}
      </ConfirmDialog>
    </>
  );
}
