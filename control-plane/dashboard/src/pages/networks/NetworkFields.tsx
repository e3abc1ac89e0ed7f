import { SimpleGrid, Stack, TagsInput, TextInput } from "@mantine/core";
import { useIsOperator } from "../../api/me.ts";
import { Choice } from "../deployments/wizard/Choice.tsx";
import type { NetworkField, NetworkForm } from "./network-form.ts";
import { modes } from "./network-words.ts";

interface Props {
  form: NetworkForm;
  change: (changes: Partial<NetworkForm>) => void;
  errors: Partial<Record<NetworkField, string>>;
  /** The network is there already: what it is made of stays as it is. */
  made?: boolean;
}

/** The fields of a network. */
export function NetworkFields(props: Props) {
  const { form, change, errors, made = false } = props;
  const operator = useIsOperator();
  const inner = form.mode !== "bridge";
  const offered = (["nat", "isolated", "bridge"] as const).filter((mode) => operator || mode !== "bridge");
  return (
    <Stack gap="sm">
      <Typed {...props} field="name" label="Name" placeholder={made ? undefined : "made up if empty"} autoFocus />
      {!made && (
        <>
          <Choice
            label="Mode"
            description={modes[form.mode].means}
            value={form.mode}
            onChange={(mode) => change({ mode: mode as NetworkForm["mode"] })}
            error={errors.mode}
            data={offered.map((mode) => ({ value: mode, label: modes[mode].label }))}
          />
          {!inner && (
            <Typed
              {...props}
              field="bridge"
              label="Bridge"
              description="The name that it has on each host."
              placeholder="br0"
            />
          )}
          {inner && (
            <>
              <SimpleGrid cols={{ base: 1, xs: 2 }} spacing="sm">
                <Typed
                  {...props}
                  field="subnet"
                  label="IPv4 range"
                  description="It may be the same as in other networks."
                  placeholder="as the cluster says"
                />
                <Typed
                  {...props}
                  field="gateway"
                  label="Gateway"
                  description="An address within the range."
                  placeholder="the first address"
                />
              </SimpleGrid>
              <Typed
                {...props}
                field="subnetV6"
                label="IPv6 range"
                description="A /64 within fd00::/8."
                placeholder="none"
              />
            </>
          )}
        </>
      )}
      {inner && (
        <TagsInput
          label="Name servers"
          description="At most three addresses. Names of this network's instances are answered on their nodes."
          placeholder={form.dns.length === 0 ? "those of the nodes" : undefined}
          value={form.dns}
          onChange={(dns) => change({ dns })}
          error={errors.dns}
          acceptValueOnBlur
          splitChars={[",", " "]}
        />
      )}
      <Typed
        {...props}
        field="mtu"
        label="Largest packet in bytes"
        description={made ? "Instances learn it when they next ask for their address." : undefined}
        placeholder={inner ? "1450" : "1500"}
        inputMode="numeric"
      />
    </Stack>
  );
}

type TextField = { [F in NetworkField]: NetworkForm[F] extends string ? F : never }[NetworkField];

function Typed({
  form,
  change,
  errors,
  made: _made,
  field,
  autoFocus = false,
  ...rest
}: Props & {
  field: TextField;
  label: string;
  description?: string | undefined;
  placeholder?: string | undefined;
  inputMode?: "numeric";
  autoFocus?: boolean;
}) {
  return (
    <TextInput
      {...rest}
      value={form[field]}
      onChange={(event) => change({ [field]: event.currentTarget.value })}
      error={errors[field]}
      autoComplete="off"
      spellCheck={false}
      data-autofocus={autoFocus || undefined}
    />
  );
}
