import { Button, Stack, Text } from "@mantine/core";
import { useDebouncedValue } from "@mantine/hooks";
import { IconRocket } from "@tabler/icons-react";
import { keepPreviousData, useQuery } from "@tanstack/react-query";
import { useNavigate } from "@tanstack/react-router";
import { type FormEvent, useMemo, useRef, useState } from "react";
import { ApiError } from "../../api/client.ts";
import { type CreateDeployment, dryRunQuery, useCreateDeployment } from "../../api/deployments.ts";
import { useIsOperator } from "../../api/me.ts";
import { allProjects, currentScope, searchOf } from "../../api/scope.ts";
import { ErrorBox } from "../../ui/ErrorBox.tsx";
import { count } from "../../ui/format.ts";
import { TextLink } from "../../ui/links.tsx";
import { Page } from "../../ui/Page.tsx";
import { Panel } from "../../ui/Panel.tsx";
import { ProjectSelect } from "../../ui/ProjectSelect.tsx";
import { ToneIcon } from "../../ui/StateBadge.tsx";
import { ProtectFields } from "./protection/ProtectFields.tsx";
import { CardFields } from "./wizard/CardFields.tsx";
import { DiskFields } from "./wizard/DiskFields.tsx";
import { DryRunPanel } from "./wizard/DryRunPanel.tsx";
import { diskOf } from "./wizard/disks.ts";
import { type FieldsProps, MemberFields, PlacementFields, ReadyFields, RestFields } from "./wizard/Fields.tsx";
import { type Field, type Form, type Meant, meantBy, sortErrors, sourceKindOf } from "./wizard/form.ts";
import { SameCall } from "./wizard/SameCall.tsx";
import { SeedFields } from "./wizard/SeedFields.tsx";
import { SourceFields } from "./wizard/SourceFields.tsx";
import { emptySeed, type SeedForm, seedMeantBy } from "./wizard/seed.ts";
import { useForm } from "./wizard/useForm.ts";
import { verdictOf } from "./wizard/verdict.ts";
import classes from "./wizard/Wizard.module.css";

/** The project that the deployment goes into. Tenants have one, which their token names. */
function projectOf(form: Form, operator: boolean): string | undefined {
  if (!operator) return undefined;
  if (form.in !== "") return form.in;
  return currentScope() === allProjects ? "default" : currentScope();
}

/** What another project does not have. */
const ofOtherProject = { image: "", number: "", snapshot: "", cards: "usual", card: [] };

type FieldErrors = Partial<Record<Field, string>>;

const missing: Record<ReturnType<typeof sourceKindOf>, string> = {
  image: "Choose an image.",
  snapshot: "Choose a snapshot.",
  version: "Write the id of a version.",
};

/** Starts instances: a form, what would come of it now, and the same call as text. */
export default function DeploymentNew() {
  const operator = useIsOperator();
  const [form, change] = useForm();
  const project = projectOf(form, operator);
  const [seed, setSeed] = useState(emptySeed);
  const fork = sourceKindOf(form) === "snapshot";
  const meant = useMemo(() => withSeed(meantBy(form), seed, fork), [form, seed, fork]);
  const { request, unread, sourced } = meant;
  const navigate = useNavigate();
  const element = useRef<HTMLFormElement>(null);

  const blocked = Object.keys(unread).length > 0;
  const [asked] = useDebouncedValue(meant, 300);
  const dryRun = useQuery({
    ...dryRunQuery(project, asked.request),
    enabled: asked.sourced && Object.keys(asked.unread).length === 0,
    placeholderData: keepPreviousData,
  });
  const create = useCreateDeployment();
  // What was refused stays at its field until something is changed.
  const [refused, setRefused] = useState<{ meant: Meant; errors: FieldErrors }>();

  const errors: FieldErrors = {
    ...(sourced && dryRun.error instanceof ApiError ? errorsOf(dryRun.error, form) : {}),
    ...(refused?.meant === meant ? refused.errors : {}),
    ...unread,
  };
  const fields: FieldsProps = { form, change, errors, project };

  const goTo = (field: string | undefined) => {
    const input = field === undefined ? null : element.current?.querySelector<HTMLElement>(`[data-field="${field}"]`);
    (input ?? element.current?.querySelector<HTMLElement>("input:not([type=hidden])"))?.focus();
  };
  const refuse = (found: FieldErrors) => {
    setRefused({ meant, errors: found });
    goTo(Object.keys(found)[0]);
  };
  const submit = (event: FormEvent) => {
    event.preventDefault();
    if (create.isPending) return;
    if (!sourced) {
      const kind = sourceKindOf(form);
      refuse({ [kind]: missing[kind] });
    } else if (blocked) goTo(Object.keys(unread)[0]);
    else {
      create.mutate(
        { project, request },
        {
          onSuccess: ({ target }) =>
            void navigate({
              to: "/deployments/$deployment",
              params: { deployment: target.id },
              search: searchOf(project),
            }),
          onError: (error) => {
            if (error instanceof ApiError) refuse(errorsOf(error, form));
          },
        },
      );
    }
  };
  const old = dryRun.isPlaceholderData || asked !== meant;
  const least = request.min_count ?? undefined;
  const verdict = dryRun.data === undefined || dryRun.error !== null || old ? undefined : verdictOf(dryRun.data, least);
  const members = request.count ?? (dryRun.data ? dryRun.data.placed + dryRun.data.unplaced : undefined);

  return (
    <Page
      title="New deployment"
      crumbs={[
        <TextLink key="list" to="/deployments">
          Deployments
        </TextLink>,
      ]}
      subtitle="Instances that start together, from one image or from a snapshot."
    >
      <div className={classes.columns}>
        <form ref={element} className={classes.form} onSubmit={submit} noValidate aria-label="New deployment">
          <Panel title="Source">
            <Stack gap="sm">
              <ProjectSelect
                description="Whose images and snapshots are offered, and who owns the members."
                value={project}
                onChange={(chosen) =>
                  change({
                    ...ofOtherProject,
                    further: form.further.filter((text) => diskOf(text).source === ""),
                    in: chosen === "default" ? "" : chosen,
                  })
                }
              />
              <SourceFields {...fields} />
            </Stack>
          </Panel>
          <Panel title="Members">
            <MemberFields {...fields} />
          </Panel>
          <Panel title="Disks">
            <DiskFields {...fields} />
          </Panel>
          {form.runtime !== "none" && (
            <Panel title="Ready and restarts">
              <ReadyFields {...fields} />
            </Panel>
          )}
          {form.runtime !== "none" && (
            <Panel title="Network">
              <CardFields {...fields} />
            </Panel>
          )}
          <Panel title="Placement">
            <PlacementFields {...fields} />
          </Panel>
          {form.runtime !== "none" && (
            <Panel title="Access and first boot">
              <SeedFields
                seed={seed}
                change={(changes) => setSeed((before) => ({ ...before, ...changes }))}
                errors={errors}
                fork={fork}
              />
            </Panel>
          )}
          <Panel title="Protection">
            <ProtectFields form={form} change={change} errors={errors} optional />
          </Panel>
          <Panel title="Labels and deadline">
            <RestFields {...fields} />
          </Panel>
          {create.error !== null && refused?.meant === meant && <Refusal error={create.error} form={form} />}
          <div className={classes.end}>
            <Button type="submit" loading={create.isPending} leftSection={<IconRocket size={16} />}>
              {buttonText(request, members)}
            </Button>
            {verdict !== undefined && (
              <>
                <ToneIcon tone={verdict.tone} />
                <Text size="sm">{verdict.title}</Text>
              </>
            )}
          </div>
        </form>
        <div className={classes.side}>
          <DryRunPanel
            sourced={sourced}
            blocked={blocked}
            answer={dryRun.data}
            error={dryRun.error}
            busy={dryRun.isFetching}
            old={old}
            least={least}
            onRetry={() => void dryRun.refetch()}
          />
          {sourced && !blocked && <SameCall request={request} project={project} />}
        </div>
      </div>
    </Page>
  );
}

/** The request with what guests are told. Disk files have no guest. */
function withSeed(meant: Meant, seed: SeedForm, fork: boolean): Meant {
  if (meant.request.runtime === "none") return meant;
  const told = seedMeantBy(seed, fork);
  return { ...meant, request: { ...meant.request, ...told.request }, unread: { ...meant.unread, ...told.unread } };
}

/** The messages of a refusal by field. A taken name says so at the name. */
function errorsOf(error: ApiError, form: Form): FieldErrors {
  if (error.code === "name_taken") return { name: error.detail };
  return sortErrors(error.errors, form).fields;
}

/** A refusal that is not about fields alone. */
function Refusal({ error, form }: { error: unknown; form: Form }) {
  const known = error instanceof ApiError && Object.keys(errorsOf(error, form)).length > 0;
  if (known && (error.code === "name_taken" || sortErrors(error.errors, form).rest.length === 0)) {
    return (
      <Text size="sm" c="red" role="alert">
        It was not deployed: the marked fields say why.
      </Text>
    );
  }
  return <ErrorBox error={error} title="It was not deployed" />;
}

function buttonText(request: CreateDeployment, members: number | undefined): string {
  const verb = request.source.snapshot ? "Fork" : "Deploy";
  if (members === undefined) return verb;
  return `${verb} ${count(members)} ${members === 1 ? "member" : "members"}`;
}
