# The image holds one static binary and nothing else.
#
#   docker build -t lbd .                      # builds lbd in a container
#   docker build --target prebuilt -t lbd .    # takes ./lbd as `make build` made it

FROM scratch AS prebuilt
COPY lbd /lbd
USER 65532:65532
EXPOSE 8080
HEALTHCHECK --interval=5s --timeout=3s --start-period=5s CMD ["/lbd", "health"]
ENTRYPOINT ["/lbd"]

FROM golang:1.26 AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG VERSION=devel
RUN CGO_ENABLED=0 go build -trimpath -ldflags "-s -w -X main.version=${VERSION}" -o /lbd ./cmd/lbd

FROM scratch AS release
COPY --from=build /lbd /lbd
USER 65532:65532
EXPOSE 8080
HEALTHCHECK --interval=5s --timeout=3s --start-period=5s CMD ["/lbd", "health"]
ENTRYPOINT ["/lbd"]
