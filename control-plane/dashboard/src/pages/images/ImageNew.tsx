import { SegmentedControl, Stack } from "@mantine/core";
import { TextLink } from "../../ui/links.tsx";
import { Page } from "../../ui/Page.tsx";
import { useSearchState } from "../../ui/search-state.ts";
import { CloneForm } from "./CloneForm.tsx";
import { UploadForm } from "./UploadForm.tsx";

/** A new image, from a file of this machine or from a version; or a new version of an image. */
export default function ImageNew() {
  const [search, setSearch] = useSearchState({ from: "file", name: "", into: "", version: "" });
  const isVersion = search.into !== "";
  return (
    <Page
      title={isVersion ? `New version of ${search.into}` : "New image"}
      crumbs={[
        <TextLink key="list" to="/images">
          Images
        </TextLink>,
      ]}
    >
      <Stack gap="md" maw={760}>
        {!isVersion && (
          <SegmentedControl
            value={search.from}
            onChange={(from) => setSearch({ from })}
            data={[
              { value: "file", label: "Upload a file" },
              { value: "version", label: "From a version" },
            ]}
            aria-label="What the image is made from"
            style={{ alignSelf: "flex-start" }}
          />
        )}
        {isVersion || search.from === "file" ? (
          <UploadForm
            name={search.name}
            into={search.into}
            onName={(name) => setSearch({ name })}
            onInto={(into) => setSearch({ into, name: "" })}
          />
        ) : (
          <CloneForm
            name={search.name}
            version={search.version}
            onName={(name) => setSearch({ name })}
            onVersion={(version) => setSearch({ version })}
          />
        )}
      </Stack>
    </Page>
  );
}
