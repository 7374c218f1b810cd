// Runs at CloudFront's edge before a call goes on (docs/adr/0012-one-stack.md).
// CloudFront puts this file into the distribution; tests run it with Node.
function handler(event) {
    var request = event.request;
    // Whatever the viewer has sent under this name is replaced.
    request.headers['x-muster-viewer-address'] = { value: event.viewer.ip };
    // A WebSocket API has no paths: its stage, which is the origin's path, is its address.
    if (request.uri === '/v1/relay/ws') {
        request.uri = '/';
    }
    return request;
}
